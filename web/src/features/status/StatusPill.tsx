/** The state of the way home: a pill, and behind it what it means and which machines there are. */
import { type Description, describeWay, kindName, type Tone } from "@/features/status/describe";
import type { BridgeStatus } from "@/net/status";
import { phaseOf, useOpen } from "@/store/conversation";
import { useWay } from "@/store/way";

const DOT: Record<Tone, string> = {
  good: "bg-good",
  busy: "bg-busy motion-safe:animate-pulse",
  warn: "bg-warn",
  bad: "bg-bad",
  idle: "bg-edge motion-safe:animate-pulse",
};

export function useDescription(): Description {
  const { contact, status } = useWay();
  const phase = useOpen(phaseOf);
  return describeWay({ contact, status, phase, origin: location.origin, now: Date.now() });
}

export function StatusPill() {
  const description = useDescription();
  const bridges = useWay((state) => state.status?.bridges ?? NONE);
  return (
    <>
      <button
        type="button"
        popoverTarget="status-panel"
        className="inline-flex h-9 items-center gap-2 rounded-full border border-line px-3 text-sm whitespace-nowrap hover:bg-raised"
      >
        <span className={`size-2 rounded-full ${DOT[description.tone]}`} />
        <span className="sr-only">Status: </span>
        <span data-testid="status">{description.label}</span>
      </button>
      <section
        id="status-panel"
        popover="auto"
        aria-label="Status"
        className="status-panel w-[min(22rem,calc(100vw-1rem))] rounded-xl border border-line bg-ground p-4 text-sm text-ink shadow-xl"
      >
        <Explanation description={description} />
        {bridges.map((bridge) => (
          <Machine key={bridge.id} bridge={bridge} />
        ))}
      </section>
    </>
  );
}

const NONE: readonly BridgeStatus[] = [];

export function Explanation({ description }: { readonly description: Description }) {
  const { sentence, remedy, command } = description;
  return (
    <div className="space-y-2">
      <p>{sentence}</p>
      {remedy !== null && <p>{remedy}</p>}
      {command !== null && <code className="prompt">{command}</code>}
    </div>
  );
}

const ENGINE_STATE = { up: "answers", down: "does not answer", loading: "is loading a model" } as const;

function Machine({ bridge }: { readonly bridge: BridgeStatus }) {
  return (
    <div className="mt-3 border-t border-line pt-3">
      <p className="flex flex-wrap justify-between gap-x-2">
        <span className="font-medium">{bridge.name}</span>
        <span className="text-muted">{bridge.connected ? "connected" : "not connected"}</span>
      </p>
      {bridge.connected && bridge.engines.length > 0 && (
        <ul className="mt-1 text-muted">
          {bridge.engines.map((engine) => (
            <li key={engine.id} className="first-letter:uppercase">
              {kindName(engine.kind)} {ENGINE_STATE[engine.state]}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
