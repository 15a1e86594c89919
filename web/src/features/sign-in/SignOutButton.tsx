/** Signs out of this browser. */
import { Trouble } from "@/features/frame/Trouble";
import { useTask } from "@/features/frame/useTask";
import { SignOutIcon } from "@/features/icons";
import { leave } from "@/store/leave";

/** For the header. */
export function SignOutIconButton() {
  const { busy, problem, run } = useTask();
  const label =
    problem === null ? "Sign out and remove this chat from the browser" : "Sign out failed; try again";
  return (
    <button
      type="button"
      className="icon-button"
      aria-label="Sign out"
      title={label}
      disabled={busy}
      onClick={() => void run(leave)}
    >
      <SignOutIcon />
      {problem !== null && (
        <span role="alert" className="sr-only">
          {label}
        </span>
      )}
    </button>
  );
}

/** For the settings, in words. */
export function SignOutHere() {
  const { busy, problem, run } = useTask();
  return (
    <div className="space-y-3">
      <button type="button" className="button" disabled={busy} onClick={() => void run(leave)}>
        <SignOutIcon />
        Sign out here
      </button>
      <p className="text-sm text-muted">Removes the chat and the list of keys from this browser.</p>
      <Trouble problem={problem} />
    </div>
  );
}
