/** What an admin may do about a user, who is known by a pseudonym only. */
import { type FormEvent, type RefObject, useId, useState } from "react";
import { ConfirmDialog } from "@/features/frame/ConfirmDialog";
import { isPseudonym, postUserAction, type UserAction } from "@/net/admin";

interface ActionText {
  readonly label: string;
  readonly question: string;
  readonly consequence: string;
  readonly done: string;
}

const ACTIONS: Record<UserAction, ActionText> = {
  "sign-out": {
    label: "Sign out everywhere",
    question: "Sign this user out everywhere?",
    consequence: "Every session of the user ends at once. Machines and API keys stay.",
    done: "was signed out everywhere.",
  },
  block: {
    label: "Block",
    question: "Block this user?",
    consequence:
      "The user's sessions end, and signing in, machines and API keys are refused until unblocked.",
    done: "is blocked.",
  },
  unblock: {
    label: "Unblock",
    question: "Unblock this user?",
    consequence: "The user may sign in again.",
    done: "is not blocked any more.",
  },
};

interface UserActionsProps {
  readonly field: RefObject<HTMLInputElement | null>;
  readonly user: string;
  readonly onUser: (user: string) => void;
  readonly onDone: () => void;
}

export function UserActions({ field, user, onUser, onDone }: UserActionsProps) {
  const id = useId();
  const [asked, setAsked] = useState<UserAction | null>(null);
  const [wrong, setWrong] = useState(false);
  const [said, setSaid] = useState("");
  const wanted = user.trim();
  const ask = (action: UserAction) => {
    const valid = isPseudonym(wanted);
    setWrong(!valid);
    if (valid) setAsked(action);
    else field.current?.focus();
  };
  return (
    <form className="card space-y-3" onSubmit={(event: FormEvent) => event.preventDefault()}>
      <label htmlFor={id} className="block text-sm font-medium">
        Pseudonym
      </label>
      <input
        id={id}
        ref={field}
        value={user}
        placeholder="u_…"
        autoComplete="off"
        autoCapitalize="none"
        spellCheck={false}
        aria-invalid={wrong}
        aria-describedby={wrong ? `${id}-wrong` : undefined}
        onChange={(event) => onUser(event.target.value)}
        className="field font-mono"
      />
      {wrong && (
        <p id={`${id}-wrong`} role="alert" className="text-sm text-bad">
          Write a pseudonym as the events below show it.
        </p>
      )}
      <div className="flex flex-wrap gap-2">
        {(Object.keys(ACTIONS) as UserAction[]).map((action) => (
          <button
            key={action}
            type="button"
            className={action === "block" ? "button button-bad" : "button"}
            onClick={() => ask(action)}
          >
            {ACTIONS[action].label}
          </button>
        ))}
      </div>
      <p role="status" className="text-sm break-all text-muted empty:sr-only">
        {said}
      </p>
      {asked !== null && (
        <ConfirmDialog
          title={ACTIONS[asked].question}
          action={ACTIONS[asked].label}
          work={() => postUserAction(wanted, asked)}
          onDone={() => {
            setSaid(`${wanted} ${ACTIONS[asked].done}`);
            setAsked(null);
            onDone();
          }}
          onClose={() => setAsked(null)}
        >
          <p className="font-mono break-all">{wanted}</p>
          <p>{ACTIONS[asked].consequence}</p>
        </ConfirmDialog>
      )}
    </form>
  );
}
