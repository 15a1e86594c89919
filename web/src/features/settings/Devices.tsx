/** The user's machines: how they are, their names, and sending one away. */
import { useState } from "react";
import { ConfirmDialog } from "@/features/frame/ConfirmDialog";
import { Command } from "@/features/frame/CopyButton";
import { useFocusBack, useSaid } from "@/features/frame/focus";
import { since } from "@/features/frame/times";
import { RenameForm } from "@/features/settings/RenameForm";
import { kindName } from "@/features/status/describe";
import { renameDevice, revokeDevice } from "@/net/devices";
import type { BridgeStatus } from "@/net/status";
import { amendBridge, useWay } from "@/store/way";

/** As the server has it. */
const MOST_NAME = 100;

export function Devices() {
  const { status, contact } = useWay();
  const said = useSaid();
  const onRevoked = (name: string) => said.say(`${name} was revoked.`);
  return (
    <>
      {contact === "lost" && (
        <p role="status" className="text-sm text-warn">
          No contact with the server:{" "}
          {status === null ? "the list cannot be shown." : "this is the last known state."}
        </p>
      )}
      <p ref={said.ref} tabIndex={-1} role="status" className="text-sm text-muted outline-none empty:sr-only">
        {said.text}
      </p>
      {status === null ? (
        contact === "connecting" && <p className="text-sm text-muted">Asking how your machines are…</p>
      ) : status.bridges.length === 0 ? (
        <p className="text-sm text-muted">No machine is connected to this account yet.</p>
      ) : (
        <ul className="space-y-3">
          {status.bridges.map((bridge) => (
            <Device key={bridge.id} bridge={bridge} onRevoked={onRevoked} />
          ))}
        </ul>
      )}
      <AddMachine />
    </>
  );
}

interface DeviceProps {
  readonly bridge: BridgeStatus;
  readonly onRevoked: (name: string) => void;
}

function Device({ bridge, onRevoked }: DeviceProps) {
  const { id, name, connected, lastSeen, version, engines } = bridge;
  const [doing, setDoing] = useState<"rename" | "revoke" | null>(null);
  const rename = useFocusBack<HTMLButtonElement>(doing === "rename");
  return (
    <li className="card space-y-2">
      <div className="flex flex-wrap items-baseline justify-between gap-x-3">
        <h3 className="min-w-0 font-medium break-words">{name}</h3>
        <p className={`text-sm ${connected ? "text-good" : "text-muted"}`}>
          {connected ? "Connected" : `Last seen: ${since(lastSeen, "never")}`}
        </p>
      </div>
      <p className="text-sm text-muted">
        {version === "" ? "Version unknown" : `Version ${version}`}
        {connected && engines.length === 0 && " · no model engine"}
        {engines.map((engine) => (
          <span key={engine.id}>
            {" · "}
            {kindName(engine.kind)} {ENGINE[engine.state]}
          </span>
        ))}
      </p>
      {doing === "rename" ? (
        <RenameForm
          name={name}
          most={MOST_NAME}
          rename={async (wanted) => {
            await renameDevice(id, wanted);
            amendBridge(id, { name: wanted });
          }}
          onClose={() => setDoing(null)}
        />
      ) : (
        <div className="flex flex-wrap gap-2">
          <button
            ref={rename}
            type="button"
            className="button"
            aria-label={`Rename ${name}`}
            onClick={() => setDoing("rename")}
          >
            Rename
          </button>
          <button
            type="button"
            className="button button-bad"
            aria-label={`Revoke ${name}`}
            onClick={() => setDoing("revoke")}
          >
            Revoke
          </button>
        </div>
      )}
      {doing === "revoke" && (
        <ConfirmDialog
          title={`Revoke ${name}?`}
          action="Revoke"
          work={() => revokeDevice(id)}
          onDone={() => {
            onRevoked(name);
            amendBridge(id, "removed");
          }}
          onClose={() => setDoing(null)}
        >
          <p>It is cut off at once, with what it answers just now. To come back it must be connected anew.</p>
        </ConfirmDialog>
      )}
    </li>
  );
}

const ENGINE = { up: "answers", down: "does not answer", loading: "is loading a model" } as const;

function AddMachine() {
  return (
    <details className="card">
      <summary className="font-medium">Add a machine</summary>
      <div className="mt-3 space-y-3 text-sm">
        <p>
          Install CloudToLocalLLM on the machine that runs your models, and run this there. It opens this page
          in the machine's browser, or shows a code to type at{" "}
          <code className="font-mono">{location.origin}/pair</code>.
        </p>
        <Command text={`cloudtolocalllm bridge login --server ${location.origin}`} what="the command" />
        <p>Then start it, and let it run:</p>
        <Command text={`cloudtolocalllm bridge run --server ${location.origin}`} what="the second command" />
      </div>
    </details>
  );
}
