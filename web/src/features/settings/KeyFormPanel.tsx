/** The form for a new API key. */
import { type FormEvent, type ReactNode, useEffect, useId, useRef, useState } from "react";
import { Trouble } from "@/features/frame/Trouble";
import { useTask } from "@/features/frame/useTask";
import { useWaiting } from "@/features/frame/useWaiting";
import {
  EMPTY_FORM,
  type Faults,
  type KeyForm,
  keyRequest,
  LIFETIMES_DAYS,
  ROUTES,
} from "@/features/settings/key-request";
import { makeKey } from "@/store/keys";
import { useWay } from "@/store/way";

interface Props {
  readonly onMade: (secret: string) => void;
  readonly onCancel: () => void;
}

export function KeyFormPanel({ onMade, onCancel }: Props) {
  const form = useRef<HTMLFormElement>(null);
  const [values, setValues] = useState<KeyForm>(EMPTY_FORM);
  const [faults, setFaults] = useState<Faults>({});
  const { busy, problem, run } = useTask();
  const waiting = useWaiting(problem);
  const change = (changed: Partial<KeyForm>) => setValues({ ...values, ...changed });
  useFocusOnFault(form, faults);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    const read = keyRequest(values);
    setFaults("faults" in read ? read.faults : {});
    if ("request" in read) await run(async () => onMade(await makeKey(read.request)));
  };
  return (
    <form ref={form} onSubmit={(event) => void submit(event)} noValidate className="card space-y-4 text-sm">
      <h3 className="text-base font-medium">A new key</h3>
      <Field label="Name" hint="What it is for, so that you know it again." fault={faults.name}>
        {(attributes) => (
          <input
            {...attributes}
            // The form came by a click, for this field.
            // biome-ignore lint/a11y/noAutofocus: whoever opened the form goes on here
            autoFocus
            value={values.name}
            maxLength={100}
            autoComplete="off"
            onChange={(event) => change({ name: event.target.value })}
          />
        )}
      </Field>
      <Field label="Lifetime">
        {(attributes) => (
          <select
            {...attributes}
            value={values.days}
            onChange={(event) => change({ days: Number(event.target.value) })}
          >
            {LIFETIMES_DAYS.map((days) => (
              <option key={days} value={days}>
                {days} days
              </option>
            ))}
          </select>
        )}
      </Field>
      <Limits values={values} faults={faults} change={change} />
      <Trouble problem={problem} />
      <div className="flex flex-wrap gap-2">
        <button type="submit" className="button button-main" disabled={busy || waiting}>
          Make the key
        </button>
        <button type="button" className="button" onClick={onCancel}>
          Cancel
        </button>
      </div>
    </form>
  );
}

/** Goes to the first field that is wrong, opening what hides it. */
function useFocusOnFault(form: React.RefObject<HTMLFormElement | null>, faults: Faults): void {
  useEffect(() => {
    if (Object.keys(faults).length === 0) return;
    const first = form.current?.querySelector<HTMLElement>("[aria-invalid=true]");
    const folded = first?.closest("details");
    if (folded) folded.open = true;
    first?.focus();
  }, [form, faults]);
}

interface LimitsProps {
  readonly values: KeyForm;
  readonly faults: Faults;
  readonly change: (changed: Partial<KeyForm>) => void;
}

function Limits({ values, faults, change }: LimitsProps) {
  const bridges = useWay((state) => state.status?.bridges);
  return (
    <details>
      <summary className="w-fit font-medium">Limit what it may do</summary>
      <div className="mt-3 space-y-4">
        <Routes chosen={values.routes} fault={faults.routes} onChange={(routes) => change({ routes })} />
        <Field label="Models" hint="Names or patterns such as qwen*; empty for all." fault={faults.models}>
          {(attributes) => (
            <input
              {...attributes}
              value={values.models}
              autoComplete="off"
              autoCapitalize="none"
              spellCheck={false}
              onChange={(event) => change({ models: event.target.value })}
            />
          )}
        </Field>
        <Field label="Requests a minute" hint="Empty for no limit." fault={faults.requestsPerMinute}>
          {(attributes) => (
            <input
              {...attributes}
              value={values.requestsPerMinute}
              inputMode="numeric"
              autoComplete="off"
              onChange={(event) => change({ requestsPerMinute: event.target.value })}
            />
          )}
        </Field>
        <Field
          label="Tokens a day"
          hint="Of questions and answers together; empty for no limit."
          fault={faults.tokensPerDay}
        >
          {(attributes) => (
            <input
              {...attributes}
              value={values.tokensPerDay}
              inputMode="numeric"
              autoComplete="off"
              onChange={(event) => change({ tokensPerDay: event.target.value })}
            />
          )}
        </Field>
        <Field label="Machine">
          {(attributes) => (
            <select
              {...attributes}
              value={values.bridge}
              onChange={(event) => change({ bridge: event.target.value })}
            >
              <option value="">Any of yours</option>
              {bridges?.map(({ id, name }) => (
                <option key={id} value={id}>
                  Only {name}
                </option>
              ))}
            </select>
          )}
        </Field>
      </div>
    </details>
  );
}

interface RoutesProps {
  readonly chosen: readonly string[];
  readonly fault: string | undefined;
  readonly onChange: (chosen: string[]) => void;
}

function Routes({ chosen, fault, onChange }: RoutesProps) {
  const id = useId();
  return (
    <fieldset aria-describedby={fault === undefined ? undefined : id}>
      <legend className="font-medium">APIs</legend>
      {ROUTES.map(({ prefix, name }) => (
        <label key={prefix} className="flex items-center gap-2 py-1">
          <input
            type="checkbox"
            className="size-4 accent-(--accent)"
            checked={chosen.includes(prefix)}
            aria-invalid={fault !== undefined}
            onChange={(event) =>
              onChange(
                event.target.checked ? [...chosen, prefix] : chosen.filter((other) => other !== prefix),
              )
            }
          />
          <span>
            {name} <code className="font-mono text-muted">{prefix}</code>
          </span>
        </label>
      ))}
      <Fault id={id} text={fault} />
    </fieldset>
  );
}

interface FieldAttributes {
  readonly id: string;
  readonly className: string;
  readonly "aria-invalid": boolean;
  readonly "aria-describedby": string | undefined;
}

interface FieldProps {
  readonly label: string;
  readonly hint?: string;
  readonly fault?: string | undefined;
  readonly children: (attributes: FieldAttributes) => ReactNode;
}

function Field({ label, hint, fault, children }: FieldProps) {
  const id = useId();
  const described = [hint && `${id}-hint`, fault && `${id}-fault`].filter(Boolean).join(" ");
  return (
    <div className="space-y-1">
      <label htmlFor={id} className="block font-medium">
        {label}
      </label>
      {children({
        id,
        className: "field",
        "aria-invalid": fault !== undefined,
        "aria-describedby": described === "" ? undefined : described,
      })}
      {hint !== undefined && (
        <p id={`${id}-hint`} className="text-muted">
          {hint}
        </p>
      )}
      <Fault id={`${id}-fault`} text={fault} />
    </div>
  );
}

function Fault({ id, text }: { readonly id: string; readonly text: string | undefined }) {
  if (text === undefined) return null;
  return (
    <p id={id} role="alert" className="text-bad">
      {text}
    </p>
  );
}
