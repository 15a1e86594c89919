import "@/app/app.css";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "@/app/App";
import { followPairingLinks } from "@/store/pairing-link";
import { startSession } from "@/store/session";

const root = document.getElementById("root");
if (root === null) throw new Error("expected an element with the id root in index.html");

// First, so that what is secret in the address is there for no longer than it takes to read it.
followPairingLinks();
void startSession();
createRoot(root).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
