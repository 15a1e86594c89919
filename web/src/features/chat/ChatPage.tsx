/** The chat as a page: its head, the list of conversations, and the one that is open. */
import { lazy, Suspense, useEffect, useLayoutEffect, useRef, useState, useSyncExternalStore } from "react";
import { flushSync } from "react-dom";
import { Chat } from "@/features/chat/Chat";
import { Conversations } from "@/features/chat/Conversations";
import { Link } from "@/features/frame/Link";
import { LoadBoundary } from "@/features/frame/LoadBoundary";
import { useTitle } from "@/features/frame/useTitle";
import { HomeTroubles } from "@/features/homes/HomeTrouble";
import { ListIcon, Mark, NewChatIcon, SettingsIcon } from "@/features/icons";
import { useFreshModels } from "@/features/models/useFreshModels";
import { SignOutIconButton } from "@/features/sign-in/SignOutButton";
import { DemoBanner } from "@/features/status/Notices";
import { StatusPill } from "@/features/status/StatusPill";
import { useChats, useOpen } from "@/store/conversation";
import { hasFormer } from "@/store/former-key";
import { useHomes } from "@/store/homes";
import { openPlace, restoreAddress } from "@/store/place";

// Who chats loads none of it.
const ModelPanel = lazy(async () => ({ default: (await import("@/features/models/ModelPanel")).ModelPanel }));

/** From here on the list stands beside the conversation. */
const WIDE = "(min-width: 64rem)";

export function ChatPage({ user }: { readonly user: string | null }) {
  const field = useRef<HTMLTextAreaElement>(null);
  const wide = useMedia(WIDE);
  const [beside, setBeside] = useState(true);
  const [drawer, setDrawer] = useState(false);
  const [models, setModels] = useState(false);
  const title = useOpen((at) => at?.head?.title ?? null);
  useTitle(title === "" ? null : title);
  useFreshModels(user);
  useFormer(user);
  useEffect(() => {
    restoreAddress();
    field.current?.focus();
  }, []);
  const toField = () => {
    // As long as the drawer is open, nothing beside it takes the focus.
    flushSync(() => setDrawer(false));
    field.current?.focus();
  };
  const startNew = () => {
    openPlace(null);
    toField();
  };
  const showModels = () => {
    setDrawer(false);
    setModels(true);
  };
  const shown = wide ? beside : drawer;
  return (
    <div className="flex h-full flex-col">
      <header className="flex h-14 shrink-0 items-center gap-1 border-b border-line px-3 max-sm:px-1">
        <button
          type="button"
          className="icon-button"
          aria-label="Conversations"
          title="Conversations"
          aria-expanded={shown}
          onClick={() => (wide ? setBeside(!beside) : setDrawer(true))}
        >
          <ListIcon />
        </button>
        <Mark className="size-7 max-[30rem]:hidden" />
        <h1 className="ml-1 font-semibold max-[40rem]:sr-only">CloudToLocalLLM</h1>
        <div className="ml-auto" />
        <StatusPill />
        <button
          type="button"
          className="icon-button"
          aria-label="New chat"
          title="New chat"
          onClick={startNew}
        >
          <NewChatIcon />
        </button>
        <Link to="/settings" className="icon-button" label="Settings">
          <SettingsIcon />
        </Link>
        <SignOutIconButton />
      </header>
      <DemoBanner />
      <HomeTroubles />
      <div className="flex min-h-0 flex-1">
        {wide && beside && (
          <nav
            aria-label="Conversations"
            className="flex w-72 shrink-0 flex-col border-r border-line bg-raised"
          >
            <Conversations onModels={showModels} onOpened={toField} />
          </nav>
        )}
        <Chat field={field} />
      </div>
      {!wide && drawer && (
        <Drawer onClose={() => setDrawer(false)}>
          <Conversations onModels={showModels} onOpened={toField} />
        </Drawer>
      )}
      {models && (
        <LoadBoundary>
          <Suspense fallback={null}>
            <ModelPanel user={user} onClose={() => setModels(false)} />
          </Suspense>
        </LoadBoundary>
      )}
    </div>
  );
}

/** What an earlier version of this page kept in the browser goes to the first home that can be reached. */
function useFormer(user: string | null): void {
  const [has, setHas] = useState(() => hasFormer(user));
  const live = useChats(
    ({ views }) => [...views.values()].find(({ contact }) => contact === "live")?.bridgeId ?? null,
  );
  useEffect(() => {
    const home = useHomes.getState().homes.find(({ bridgeId }) => bridgeId === live);
    if (!has || home === undefined) return;
    setHas(false);
    // Without it nothing is lost: it stays where it is.
    void import("@/store/former").then(
      ({ takeOver }) => takeOver(user, home.transport),
      () => {},
    );
  }, [has, live, user]);
}

interface DrawerProps {
  readonly onClose: () => void;
  readonly children: React.ReactNode;
}

/** Is open while it is mounted. The browser keeps the focus within, and gives it back. */
function Drawer({ onClose, children }: DrawerProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  // As the layout's effect it closes before it is removed; only then the focus goes back.
  useLayoutEffect(() => {
    const element = dialog.current;
    element?.showModal();
    return () => element?.close();
  }, []);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Esc closes it too, as the browser does for every dialog
    <dialog
      ref={dialog}
      aria-label="Conversations"
      onClose={onClose}
      onClick={(event) => {
        // A click beside it is one on the dialog itself.
        if (event.target === event.currentTarget) onClose();
      }}
      className="m-0 h-full max-h-none w-[min(20rem,100vw)] max-w-none border-r border-line bg-raised text-ink backdrop:bg-black/50"
    >
      <div className="flex h-full flex-col">
        <p className="flex justify-end px-2 pt-2">
          <button type="button" className="button" onClick={onClose}>
            Close
          </button>
        </p>
        {children}
      </div>
    </dialog>
  );
}

function useMedia(query: string): boolean {
  return useSyncExternalStore(
    (listener) => {
      const media = matchMedia(query);
      media.addEventListener("change", listener);
      return () => media.removeEventListener("change", listener);
    },
    () => matchMedia(query).matches,
  );
}
