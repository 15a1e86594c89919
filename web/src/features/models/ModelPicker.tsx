/** Which model answers. */
import { useEffect } from "react";
import { RetryIcon } from "@/features/icons";
import { chooseModel, loadModels, useModels } from "@/store/models";
import { useWay } from "@/store/way";

/** Asks for the models again whenever an engine comes or goes. */
function useFreshModels(): void {
  const engines = useWay(({ status }) => {
    if (status?.state !== "ready" && status?.state !== "loading") return null;
    return status.bridges
      .flatMap((bridge) =>
        bridge.engines.filter((engine) => engine.state !== "down").map((engine) => engine.id),
      )
      .join(" ");
  });
  useEffect(() => {
    if (engines !== null) void loadModels();
  }, [engines]);
}

export function ModelPicker() {
  useFreshModels();
  const { models, chosen, loading, problem } = useModels();
  const offered = models ?? (chosen === null ? [] : [chosen]);
  return (
    <div className="flex min-w-0 items-center gap-1 text-sm text-muted">
      <label htmlFor="model" className="sr-only">
        Model
      </label>
      <select
        id="model"
        className="max-w-56 min-w-0 truncate rounded-lg bg-transparent py-1.5 pr-1 pl-2 font-medium text-muted hover:bg-sunken hover:text-ink [&>option]:bg-ground [&>option]:text-ink"
        value={chosen ?? ""}
        disabled={offered.length === 0}
        onChange={(event) => chooseModel(event.target.value)}
      >
        {offered.length === 0 && <option value="">{emptyLabel(loading, models !== null)}</option>}
        {offered.map((model) => (
          <option key={model} value={model}>
            {model}
          </option>
        ))}
      </select>
      {problem !== null && !loading && (
        <button
          type="button"
          className="icon-button"
          aria-label="Ask for the models again"
          title={`${problem.title}. ${problem.detail}`}
          onClick={() => void loadModels()}
        >
          <RetryIcon />
        </button>
      )}
    </div>
  );
}

function emptyLabel(loading: boolean, known: boolean): string {
  if (loading) return "Asking for models…";
  return known ? "No models installed" : "No model yet";
}
