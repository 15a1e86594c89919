/** The models of each machine: which there are, getting others, and deleting some. */
import { type FormEvent, useEffect, useId, useLayoutEffect, useRef, useState } from "react";
import { ConfirmDialog } from "@/features/frame/ConfirmDialog";
import { useSaid } from "@/features/frame/focus";
import { Trouble } from "@/features/frame/Trouble";
import { useHomeName } from "@/features/homes/useHomeName";
import { PullItem } from "@/features/models/PullItem";
import { deleteModel, type Model } from "@/net/home/api";
import { useChats } from "@/store/conversation";
import { type Home, useHomes, userKey } from "@/store/homes";
import { loadModels, useModels } from "@/store/models";

interface Props {
  readonly user: string | null;
  readonly onClose: () => void;
}

/** Is open while it is mounted. */
export function ModelPanel({ user, onClose }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const heading = useId();
  const homes = useHomes((state) => state.homes);
  // As the layout's effect it closes before it is removed; only then the focus goes back.
  useLayoutEffect(() => {
    const element = dialog.current;
    element?.showModal();
    return () => element?.close();
  }, []);
  return (
    <dialog
      ref={dialog}
      aria-labelledby={heading}
      onClose={onClose}
      className="dialog w-[min(40rem,calc(100vw-2rem))]"
    >
      <div className="flex items-center justify-between gap-2">
        <h2 id={heading} className="text-lg font-semibold">
          Models
        </h2>
        <button type="button" className="button" onClick={onClose}>
          Close
        </button>
      </div>
      {homes.length === 0 && <p className="text-muted">This browser is not paired with a machine yet.</p>}
      {homes.map((home) => (
        <HomeModels key={home.bridgeId} user={userKey(user)} home={home} />
      ))}
    </dialog>
  );
}

function HomeModels({ user, home }: { readonly user: string; readonly home: Home }) {
  const { bridgeId } = home;
  const name = useHomeName(bridgeId);
  const list = useModels((state) => state.homes.get(bridgeId));
  const contact = useChats(({ views }) => views.get(bridgeId)?.contact ?? "lost");
  const online = contact === "live";
  const [asked, setAsked] = useState<readonly string[]>([]);
  const said = useSaid();
  useEffect(() => {
    if (online) void loadModels(user, bridgeId);
  }, [online, user, bridgeId]);
  const going = (list?.pulls ?? []).filter(({ state }) => state === "pulling").map(({ model }) => model);
  const pulls = [...new Set([...going, ...asked])];
  return (
    <section aria-label={name} className="space-y-3">
      <h3 className="font-medium break-words">
        {name}
        {contact === "lost" && (
          <span className="font-normal text-muted"> (offline: as it was seen last)</span>
        )}
      </h3>
      <p ref={said.ref} tabIndex={-1} role="status" className="text-sm text-muted outline-none empty:hidden">
        {said.text}
      </p>
      <Trouble problem={online ? (list?.problem ?? null) : null} />
      <ul aria-label={`Models of ${name}`} className="space-y-2">
        {(list?.models ?? []).map((model) => (
          <ModelItem
            key={`${model.engine}/${model.name}`}
            model={model}
            home={home}
            online={online}
            onDeleted={async () => {
              said.say(`${model.name} was deleted.`);
              await loadModels(user, bridgeId);
            }}
          />
        ))}
      </ul>
      {pulls.length > 0 && (
        <ul aria-label="Being fetched" className="space-y-2">
          {pulls.map((model) => (
            <PullItem
              key={model}
              home={home}
              model={model}
              onDone={() => void loadModels(user, bridgeId)}
              onDismiss={() => setAsked(asked.filter((each) => each !== model))}
            />
          ))}
        </ul>
      )}
      <PullForm enabled={online} onPull={(model) => setAsked([...new Set([...asked, model])])} />
    </section>
  );
}

interface ModelItemProps {
  readonly model: Model;
  readonly home: Home;
  readonly online: boolean;
  readonly onDeleted: () => Promise<void>;
}

function ModelItem({ model, home, online, onDeleted }: ModelItemProps) {
  const [deleting, setDeleting] = useState(false);
  const notes = [
    model.loaded ? "in memory" : null,
    model.state === "down" ? "its engine does not answer" : null,
    model.cloud ? "passed on to others' machines" : null,
  ].filter((note) => note !== null);
  return (
    <li className="flex flex-wrap items-center justify-between gap-2">
      <span className="min-w-0 break-all">
        {model.name}
        {notes.length > 0 && <span className="text-sm text-muted"> ({notes.join(", ")})</span>}
      </span>
      {model.kind === "ollama" && (
        <button
          type="button"
          className="button button-bad"
          aria-label={`Delete ${model.name}`}
          disabled={!online}
          onClick={() => setDeleting(true)}
        >
          Delete
        </button>
      )}
      {deleting && (
        <ConfirmDialog
          title={`Delete ${model.name}?`}
          action="Delete"
          work={() => deleteModel(home.transport, { model: model.name })}
          onDone={() => {
            setDeleting(false);
            void onDeleted();
          }}
          onClose={() => setDeleting(false)}
        >
          <p>It is deleted from the machine's disk. To have it again, it has to be fetched anew.</p>
        </ConfirmDialog>
      )}
    </li>
  );
}

function PullForm({
  enabled,
  onPull,
}: {
  readonly enabled: boolean;
  readonly onPull: (model: string) => void;
}) {
  const [typed, setTyped] = useState("");
  const id = useId();
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const model = typed.trim();
    if (model === "") return;
    onPull(model);
    setTyped("");
  };
  return (
    <form onSubmit={submit} className="space-y-1">
      <label htmlFor={id} className="text-sm">
        Fetch a model
      </label>
      <span className="flex gap-2">
        <input
          id={id}
          className="field"
          placeholder="llama3.2:3b"
          autoComplete="off"
          spellCheck={false}
          value={typed}
          onChange={(event) => setTyped(event.target.value)}
        />
        <button type="submit" className="button" disabled={!enabled || typed.trim() === ""}>
          Fetch
        </button>
      </span>
    </form>
  );
}
