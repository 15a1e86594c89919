/** The page as a whole: signed out, or the page that the address means. */
import { lazy, type ReactNode, Suspense, useEffect, useRef } from "react";
import { Chat } from "@/features/chat/Chat";
import { Link } from "@/features/frame/Link";
import { LoadBoundary } from "@/features/frame/LoadBoundary";
import { Screen } from "@/features/frame/Screen";
import { useTitle } from "@/features/frame/useTitle";
import { Mark, NewChatIcon, SettingsIcon } from "@/features/icons";
import { SignedOut } from "@/features/sign-in/SignedOut";
import { SignInFailed } from "@/features/sign-in/SignInFailed";
import { SignOutIconButton } from "@/features/sign-in/SignOutButton";
import { DemoBanner } from "@/features/status/Notices";
import { StatusPill } from "@/features/status/StatusPill";
import { clear, openConversation } from "@/store/conversation";
import { rememberedOf } from "@/store/keys";
import { usePlace } from "@/store/location";
import { type SignedIn, useSession } from "@/store/session";
import { followWay } from "@/store/way";

// Who chats loads none of these.
const Pair = lazy(async () => ({ default: (await import("@/app/account-pages")).Pair }));
const Settings = lazy(async () => ({ default: (await import("@/app/account-pages")).Settings }));
const Admin = lazy(async () => ({ default: (await import("@/app/account-pages")).Admin }));

export function App() {
  const session = useSession();
  return session.kind === "signed-in" ? <Inside key={session.user} session={session} /> : <SignedOut />;
}

function Inside({ session }: { readonly session: SignedIn }) {
  const { user } = session;
  useEffect(() => {
    openConversation(user);
    rememberedOf(user);
    return followWay();
  }, [user]);
  const route = usePlace((place) => place.route);
  switch (route.page) {
    case "chat":
      return <Home />;
    case "sign-in":
      return route.error === null ? <Home /> : <SignInFailed error={route.error} returnTo={route.returnTo} />;
    case "pair":
      return (
        <Loaded key="pair">
          <Pair code={route.code} request={route.request} />
        </Loaded>
      );
    case "settings":
      return (
        <Loaded key="settings">
          <Settings session={session} />
        </Loaded>
      );
    case "admin":
      return session.admin ? (
        <Loaded key="admin">
          <Admin />
        </Loaded>
      ) : (
        <Nothing title="This page is for admins">
          This account is none, so there is nothing to see here.
        </Nothing>
      );
    case "unknown":
      return <Nothing title="There is no such page">Perhaps the address was not copied whole.</Nothing>;
  }
}

function Loaded({ children }: { readonly children: ReactNode }) {
  return (
    <LoadBoundary>
      <Suspense fallback={<Screen title="One moment" busy />}>{children}</Suspense>
    </LoadBoundary>
  );
}

function Nothing({ title, children }: { readonly title: string; readonly children: ReactNode }) {
  return (
    <Screen title={title}>
      <p>{children}</p>
      <Link to="/" className="button mt-2">
        To the chat
      </Link>
    </Screen>
  );
}

function Home() {
  const field = useRef<HTMLTextAreaElement>(null);
  useTitle(null);
  useEffect(() => field.current?.focus(), []);
  const startNew = () => {
    clear();
    field.current?.focus();
  };
  return (
    <div className="flex h-full flex-col">
      <header className="flex h-14 shrink-0 items-center gap-1 border-b border-line px-3">
        <Mark className="size-7 max-[26rem]:hidden" />
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
        <Link to="/settings" className="icon-button" label="Settings">
          <SettingsIcon />
        </Link>
        <SignOutIconButton />
      </header>
      <DemoBanner />
      <Chat field={field} />
    </div>
  );
}
