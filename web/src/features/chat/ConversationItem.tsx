/** One conversation in the list: opening it, and what else can be done with it. */
import { lazy, type MouseEvent, memo, Suspense, useState } from "react";
import type { Listed } from "@/features/chat/Conversations";
import { ConfirmDialog } from "@/features/frame/ConfirmDialog";
import { useFocusBack } from "@/features/frame/focus";
import { useHomeName } from "@/features/homes/useHomeName";
import { MoreIcon, PinIcon } from "@/features/icons";
import { remove } from "@/store/conversation";
import { addressOf, openMessage, type Place } from "@/store/place";

const Actions = lazy(async () => ({ default: (await import("@/features/chat/extras")).Actions }));
const RenameForm = lazy(async () => ({ default: (await import("@/features/chat/extras")).RenameForm }));

interface Props {
  readonly listed: Listed;
  /** Whether its home is named too. */
  readonly named: boolean;
  readonly current: boolean;
  readonly onOpened: () => void;
}

export const ConversationItem = memo(
  function ConversationItem({ listed, named, current, onOpened }: Props) {
    const { bridgeId, head, running, online } = listed;
    const [doing, setDoing] = useState<"nothing" | "menu" | "renaming" | "deleting">("nothing");
    const more = useFocusBack<HTMLButtonElement>(doing === "renaming" || doing === "deleting");
    const home = useHomeName(bridgeId);
    const place: Place = { bridgeId, conversation: head.id };
    const title = head.title || "Untitled";
    const menu = doing !== "nothing";
    if (doing === "renaming")
      return (
        <li className="p-1">
          <Suspense fallback={null}>
            <RenameForm title={head.title} place={place} onClose={() => setDoing("nothing")} />
          </Suspense>
        </li>
      );
    return (
      <li className={`rounded-lg ${current ? "bg-sunken" : ""}`}>
        <div className="flex items-center">
          <PlaceLink place={place} current={current} onOpened={onOpened}>
            {head.pinned && (
              <>
                <span className="sr-only">Pinned: </span>
                <PinIcon />
              </>
            )}
            <span className="min-w-0 flex-1">
              <span className="block truncate">{title}</span>
              {named && <span className="block truncate text-xs text-muted">{home}</span>}
            </span>
            {running && (
              <>
                <span className="size-2 shrink-0 rounded-full bg-busy motion-safe:animate-pulse" />
                <span className="sr-only">An answer is being written</span>
              </>
            )}
          </PlaceLink>
          <button
            ref={more}
            type="button"
            className="icon-button"
            aria-label={`More about ${title}`}
            aria-expanded={menu}
            onClick={() => setDoing(menu ? "nothing" : "menu")}
          >
            <MoreIcon />
          </button>
        </div>
        {menu && (
          <Suspense fallback={null}>
            <Actions
              listed={listed}
              place={place}
              onRename={() => setDoing("renaming")}
              onDelete={() => setDoing("deleting")}
              onDone={() => setDoing("nothing")}
            />
          </Suspense>
        )}
        {doing === "deleting" && (
          <ConfirmDialog
            title={`Delete “${title}”?`}
            action="Delete"
            work={async () => remove(place)}
            onDone={() => setDoing("nothing")}
            onClose={() => setDoing("nothing")}
          >
            <p>It is deleted at home, for all your devices and for good.</p>
            {!online && <p>The machine cannot be reached just now.</p>}
          </ConfirmDialog>
        )}
      </li>
    );
  },
  (before, after) =>
    before.current === after.current &&
    before.named === after.named &&
    before.listed.head === after.listed.head &&
    before.listed.running === after.listed.running &&
    before.listed.online === after.listed.online,
);

interface PlaceLinkProps {
  readonly place: Place;
  readonly message?: string | null;
  readonly current?: boolean;
  readonly onOpened: () => void;
  readonly children: React.ReactNode;
}

/** A link that opens a conversation, at one of its messages. */
export function PlaceLink({ place, message = null, current = false, onOpened, children }: PlaceLinkProps) {
  const onClick = (event: MouseEvent) => {
    // Everything but a plain click is the browser's: a new tab, a window.
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    openMessage(place, message);
    onOpened();
  };
  return (
    <a
      href={addressOf(place)}
      aria-current={current ? "page" : undefined}
      onClick={onClick}
      className="flex min-w-0 flex-1 items-center gap-2 rounded-lg px-2 py-2 text-sm hover:bg-sunken"
    >
      {children}
    </a>
  );
}
