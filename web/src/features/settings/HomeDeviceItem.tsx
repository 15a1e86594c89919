/** One device of a home: who it is, and letting it in, renaming or removing it. */
import { useState } from "react";
import { ConfirmDialog } from "@/features/frame/ConfirmDialog";
import { useFocusBack } from "@/features/frame/focus";
import { dateTime, since } from "@/features/frame/times";
import { SafetyWords } from "@/features/homes/SafetyWords";
import { RenameForm } from "@/features/settings/RenameForm";
import { approveDevice, type Device, removeDevice, renameDevice } from "@/net/home/api";
import { MOST_DEVICE_NAME } from "@/net/home/pairing";
import { ProblemError } from "@/net/problem";
import { forgetHome, type Home } from "@/store/homes";

interface Props {
  readonly user: string | null;
  readonly home: Home;
  readonly device: Device;
  /** Whether it is this browser. */
  readonly own: boolean;
  readonly nameOf: (id: string) => string | null;
  readonly onDone: (text: string) => Promise<void>;
}

export function HomeDeviceItem(props: Props) {
  const { device, own, home, user, onDone } = props;
  const { id, name, paired } = device;
  const [doing, setDoing] = useState<"rename" | "remove" | "approve" | null>(null);
  const renameButton = useFocusBack<HTMLButtonElement>(doing === "rename");
  const remove = async () => {
    try {
      await removeDevice(home.transport, id);
    } catch (error) {
      // What is not there any more is removed already.
      if (!(error instanceof ProblemError && error.problem.status === 404)) throw error;
    }
    if (own) await forgetHome(user, home.bridgeId);
  };
  return (
    <li className="space-y-2 border-t border-line pt-3">
      <Facts {...props} />
      {doing === "rename" ? (
        <RenameForm
          name={name}
          most={MOST_DEVICE_NAME}
          rename={async (wanted) => {
            await renameDevice(home.transport, id, { name: wanted });
            await onDone("");
          }}
          onClose={() => setDoing(null)}
        />
      ) : (
        <div className="flex flex-wrap gap-2">
          {paired ? (
            <button
              ref={renameButton}
              type="button"
              className="button"
              aria-label={`Rename ${name}`}
              onClick={() => setDoing("rename")}
            >
              Rename
            </button>
          ) : (
            <button
              type="button"
              className="button button-main"
              aria-label={`Compare words with ${name}`}
              onClick={() => setDoing("approve")}
            >
              Compare words
            </button>
          )}
          <button
            type="button"
            className="button button-bad"
            aria-label={`${paired ? "Remove" : "Refuse"} ${name}`}
            onClick={() => setDoing("remove")}
          >
            {paired ? "Remove" : "Refuse"}
          </button>
        </div>
      )}
      {doing === "remove" && (
        <ConfirmDialog
          title={paired ? `Remove ${name}?` : `Refuse ${name}?`}
          action={paired ? "Remove" : "Refuse"}
          work={remove}
          onDone={() => void onDone(`${name} was ${paired ? "removed" : "refused"}.`)}
          onClose={() => setDoing(null)}
        >
          <p>
            {own
              ? "This is the browser that you use now. It loses its way to this home at once, and has to be paired anew."
              : "It is refused from now on, and what it is being answered ends. To come back it has to be paired anew."}
          </p>
        </ConfirmDialog>
      )}
      {doing === "approve" && (
        <ConfirmDialog
          title={`Let ${name} in?`}
          action="The words are the same: let it in"
          work={async () => void (await approveDevice(home.transport, id))}
          onDone={() => {
            setDoing(null);
            void onDone(`${name} was let in.`);
          }}
          onClose={() => setDoing(null)}
        >
          {home.fingerprint === null ? (
            <p>Let it in only if it is yours and asks just now.</p>
          ) : (
            <>
              <p>
                {name} must show these words, all eight, in this order. If one differs, or if you did not
                begin this yourself, refuse it.
              </p>
              <SafetyWords fingerprint={home.fingerprint} deviceId={id} />
            </>
          )}
        </ConfirmDialog>
      )}
    </li>
  );
}

function Facts({ device, own, nameOf }: Props) {
  const { name, paired, approved_by: approvedBy } = device;
  const added = device.added * 1000;
  const lastSeen = device.last_seen === null ? null : device.last_seen * 1000;
  return (
    <>
      <div className="flex flex-wrap items-baseline justify-between gap-x-3">
        <h4 className="min-w-0 font-medium break-words">{name}</h4>
        {own && <p className="text-sm text-good">This browser</p>}
        {!paired && <p className="text-sm text-warn">Waits to be let in</p>}
      </div>
      <p className="text-sm break-words text-muted">
        {paired ? (
          <>
            Paired on {dateTime(added)}, {byWhom(approvedBy, nameOf)} · last seen: {since(lastSeen, "never")}
          </>
        ) : (
          `Asked on ${dateTime(added)}`
        )}
      </p>
    </>
  );
}

function byWhom(approvedBy: string, nameOf: (id: string) => string | null): string {
  if (approvedBy === "link") return "by a link";
  if (approvedBy === "local") return "at the machine";
  return `let in by ${nameOf(approvedBy) ?? "a device that was removed"}`;
}
