/** The page as a whole: signed out, or the page that the address means. */
import { lazy, type ReactNode, Suspense, useEffect } from "react";
import { ChatPage } from "@/features/chat/ChatPage";
import { Link } from "@/features/frame/Link";
import { LoadBoundary } from "@/features/frame/LoadBoundary";
import { Screen } from "@/features/frame/Screen";
import { SignedOut } from "@/features/sign-in/SignedOut";
import { SignInFailed } from "@/features/sign-in/SignInFailed";
import { isServedByHome } from "@/net/home/served";
import { followChats } from "@/store/conversation";
import { followHomes, userKey } from "@/store/homes";
import { forgetOthersKeys } from "@/store/kept-keys";
import { usePlace } from "@/store/location";
import { openModels } from "@/store/models";
import { goOnWithLink } from "@/store/pairing-link";
import { openPriority } from "@/store/priority";
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
    openModels(userKey(user));
    openPriority(userKey(user));
    forgetOthersKeys(user);
    const leaveWay = followWay();
    const leaveHomes = followHomes(user, () => goOnWithLink(user));
    const leaveChats = followChats(user);
    return () => {
      leaveChats();
      leaveWay();
      leaveHomes();
    };
  }, [user]);
  const route = usePlace((place) => place.route);
  switch (route.page) {
    case "chat":
      return <ChatPage user={user} />;
    case "sign-in":
      return route.error === null ? (
        <ChatPage user={user} />
      ) : (
        <SignInFailed error={route.error} returnTo={route.returnTo} />
      );
    case "pair":
      return isServedByHome() ? (
        <Nothing title="There is nothing to pair here">
          This page comes from your machine itself, and speaks to it directly.
        </Nothing>
      ) : (
        <Loaded key="pair">
          <Pair user={user} code={route.code} request={route.request} home={route.home} />
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
