import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { clientOf, type Description } from "../../tooling/home-api.ts";

const web = fileURLToPath(new URL("../..", import.meta.url));
const target = "src/net/home/api.ts";

/** `npm run generate` lets this very test write the file. */
it("is the client that the home API's description gives", async () => {
  const path = new URL("../../../docs/reference/home-api.json", import.meta.url);
  const description = JSON.parse(readFileSync(path, "utf8")) as Description;
  const made = execFileSync("node_modules/.bin/biome", ["format", `--stdin-file-path=${target}`], {
    cwd: web,
    input: clientOf(description),
    encoding: "utf8",
  });
  await expect(made).toMatchFileSnapshot(`${web}${target}`);
});
