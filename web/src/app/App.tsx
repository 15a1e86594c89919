/** The page as a whole: signed out, or the chat with its header. */
import { useEffect, useRef, useState } from "react";
import { Chat } from "@/features/chat/Chat";
import { Mark, NewChatIcon, SignOutIcon } from "@/features/icons";
import { SignedOut } from "@/features/sign-in/SignedOut";
import { DemoBanner } from "@/features/status/Notices";
import { StatusPill } from "@/features/status/StatusPill";
import { clear, openConversation } from "@/store/conversation";
import { signOut, useSession } from "@/store/session";
import { followWay } from "@/store/way";

export function App() {
  const session = useSession();
  return session.kind === "signed-in" ? <Home key={session.user} user={session.user} /> : <SignedOut />;
}

function Home({ user }: { readonly user: string | null }) {
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    openConversation(user);
    field.current?.focus();
    return followWay();
  }, [user]);
  const startNew = () => {
    clear();
    field.current?.focus();
  };
  return (
    <div className="flex h-full flex-col">
      <header className="flex h-14 shrink-0 items-center gap-1 border-b border-line px-3">
        <Mark className="size-7" />
        <h1 className="ml-1 font-semibold max-[26rem]:sr-only">CloudToLocalLLM</h1>
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
        <SignOutButton />
      </header>
      <DemoBanner />
      <Chat field={field} />
    </div>
  );
}

function SignOutButton() {
  const [failed, setFailed] = useState(false);
  const leave = async () => {
    try {
      await signOut();
      // What was said stays with whoever said it, not with the next person at this browser.
      clear();
    } catch {
      setFailed(true);
    }
  };
  const label = failed ? "Sign out failed; try again" : "Sign out and remove this chat from the browser";
  return (
    <button
      type="button"
      className="icon-button"
      aria-label="Sign out"
      title={label}
      onClick={() => void leave()}
    >
      <SignOutIcon />
      {failed && (
        <span role="alert" className="sr-only">
          {label}
        </span>
      )}
    </button>
  );
}
