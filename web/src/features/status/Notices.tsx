/** What must not be overlooked: the demo's label, and whatever stands between the page and an answer. */
import { hasDemo } from "@/features/status/describe";
import { Explanation, useDescription } from "@/features/status/StatusPill";
import { useWay } from "@/store/way";

export function DemoBanner() {
  const demo = useWay((state) => hasDemo(state.status));
  if (!demo) return null;
  return (
    <aside
      aria-label="Demo engine"
      className="border-b border-warn-line bg-warn-ground px-4 py-2 text-center text-sm text-warn"
    >
      <strong>This is the scripted demo engine, not a model.</strong>{" "}
      <span>
        Install{" "}
        <a className="underline" href="https://ollama.com/download" target="_blank" rel="noopener noreferrer">
          Ollama
        </a>
        , pull a model and restart <code className="font-mono">cloudtolocalllm up</code>.
      </span>
    </aside>
  );
}

export function WayNotice() {
  const description = useDescription();
  const { tone, label } = description;
  if (tone !== "bad" && tone !== "warn") return null;
  const colours = tone === "bad" ? "border-bad-line bg-bad-ground" : "border-warn-line bg-warn-ground";
  return (
    <section role="status" className={`mb-2 rounded-xl border px-4 py-3 text-sm ${colours}`}>
      <p className={`mb-1 font-semibold ${tone === "bad" ? "text-bad" : "text-warn"}`}>{label}</p>
      <Explanation description={description} />
    </section>
  );
}
