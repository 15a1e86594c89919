/** Which model answers, and at which machine, where more than one has it. */
import { useChoice } from "@/features/chat/useChoice";
import { useHomeName } from "@/features/homes/useHomeName";
import { RetryIcon } from "@/features/icons";
import { useHomes, userKey } from "@/store/homes";
import { chooseModel, loadModels, type Offer, useModels } from "@/store/models";
import { useSession } from "@/store/session";
import { useWay } from "@/store/way";

const SELECT =
  "min-w-0 truncate rounded-lg bg-transparent py-1.5 pr-1 pl-2 font-medium text-muted hover:bg-sunken hover:text-ink [&_optgroup]:bg-ground [&_option]:bg-ground [&_option]:text-ink";

export function ModelPicker() {
  const { offers, choice, within } = useChoice();
  const here = within === null ? offers : offers.filter((offer) => isAt(offer, within));
  const elsewhere = within === null ? [] : offers.filter((offer) => !isAt(offer, within));
  const offer = offers.find(({ model }) => model === choice?.model);
  return (
    <div className="flex min-w-0 items-center gap-1 text-sm text-muted">
      <label htmlFor="model" className="sr-only">
        Model
      </label>
      <select
        id="model"
        className={`max-w-56 ${SELECT}`}
        value={choice?.model ?? ""}
        disabled={here.length === 0}
        onChange={(event) => chooseModel({ model: event.target.value, bridgeId: null })}
      >
        {here.length === 0 && <EmptyOption />}
        {here.map((each) => (
          <ModelOption key={each.model} offer={each} within={within} />
        ))}
        {elsewhere.length > 0 && (
          <optgroup label="At other machines, for new chats" disabled>
            {elsewhere.map(({ model }) => (
              <option key={model} value={model}>
                {model}
              </option>
            ))}
          </optgroup>
        )}
      </select>
      {within === null && choice !== null && offer !== undefined && offer.homes.length > 1 && (
        <HomePicker offer={offer} bridgeId={choice.bridgeId} />
      )}
      <AskAgain />
    </div>
  );
}

function isAt({ homes }: Offer, bridgeId: string): boolean {
  return homes.some((home) => home.bridgeId === bridgeId);
}

function ModelOption({ offer, within }: { readonly offer: Offer; readonly within: string | null }) {
  const { model, homes, cloud } = offer;
  const fitting = within === null ? homes : homes.filter(({ bridgeId }) => bridgeId === within);
  const first = useHomeName(fitting[0]?.bridgeId ?? "");
  const notes = [
    ...(fitting.some(({ online }) => online) ? [] : [`${first} is offline`]),
    ...(cloud ? ["passed on to others' machines"] : []),
  ];
  return (
    <option value={model}>
      {model}
      {notes.length > 0 && ` (${notes.join(", ")})`}
    </option>
  );
}

function HomePicker({ offer, bridgeId }: { readonly offer: Offer; readonly bridgeId: string }) {
  const { model, homes } = offer;
  return (
    <>
      <label htmlFor="model-home" className="sr-only">
        Machine
      </label>
      <select
        id="model-home"
        className={`max-w-40 ${SELECT}`}
        value={bridgeId}
        onChange={(event) => chooseModel({ model, bridgeId: event.target.value })}
      >
        {homes.map((home) => (
          <HomeOption key={home.bridgeId} {...home} noneOnline={homes.every(({ online }) => !online)} />
        ))}
      </select>
    </>
  );
}

interface HomeOptionProps {
  readonly bridgeId: string;
  readonly online: boolean;
  /** Whether no home is online. */
  readonly noneOnline: boolean;
}

function HomeOption({ bridgeId, online, noneOnline }: HomeOptionProps) {
  const name = useHomeName(bridgeId);
  return (
    <option value={bridgeId} disabled={!online && !noneOnline}>
      {name}
      {!online && " (offline)"}
    </option>
  );
}

function EmptyOption() {
  const lists = useModels((state) => state.homes);
  const all = [...lists.values()];
  const text = all.some(({ loading }) => loading)
    ? "Asking for models…"
    : all.some(({ heard }) => heard)
      ? "No models installed"
      : "No model yet";
  return <option value="">{text}</option>;
}

function AskAgain() {
  const lists = useModels((state) => state.homes);
  const homes = useHomes((state) => state.homes);
  const status = useWay((state) => state.status);
  const user = useSession((state) => (state.kind === "signed-in" ? state.user : null));
  const failed = homes.filter(({ bridgeId }) => {
    const list = lists.get(bridgeId);
    // Of a machine that is known to be away nothing is to be had.
    const away = status?.bridges.some(({ id, connected }) => id === bridgeId && !connected) ?? false;
    return list !== undefined && list.problem !== null && !list.loading && !away;
  });
  const problem = failed.map(({ bridgeId }) => lists.get(bridgeId)?.problem).find(Boolean);
  if (!problem) return null;
  return (
    <button
      type="button"
      className="icon-button"
      aria-label="Ask for the models again"
      title={`${problem.title}. ${problem.detail}`}
      onClick={() => {
        for (const { bridgeId } of failed) void loadModels(userKey(user), bridgeId);
      }}
    >
      <RetryIcon />
    </button>
  );
}
