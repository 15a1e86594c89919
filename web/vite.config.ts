import { fileURLToPath } from "node:url";
import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";
import { precompress } from "./tooling/precompress.ts";

/** Where `npm run dev` finds a running `cloudtolocalllm up`. */
const server = process.env["C2L_DEV_SERVER"] ?? "http://127.0.0.1:8080";
const routes = ["/api", "/v1", "/ollama", "/anthropic", "/c2l", "/e2e"];

export default defineConfig({
  plugins: [react(), tailwindcss(), precompress()],
  resolve: { alias: { "@": fileURLToPath(new URL("./src", import.meta.url)) } },
  build: {
    target: "es2022",
    sourcemap: false,
    // Every browser that runs es2022 preloads modules by itself.
    modulePreload: { polyfill: false },
    // The content security policy allows data: for images only.
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    // Those of what is in the bundle ask to be passed on with it.
    license: { fileName: "licenses.txt" },
  },
  server: { proxy: Object.fromEntries(routes.map((route) => [route, { target: server }])) },
});
