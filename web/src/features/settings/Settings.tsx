/** The settings: machines, the devices that are paired with them, API keys, the account. */
import { AccountPage, Section } from "@/features/frame/AccountPage";
import { Link } from "@/features/frame/Link";
import { dateTime } from "@/features/frame/times";
import { Devices } from "@/features/settings/Devices";
import { HomeDevices } from "@/features/settings/HomeDevices";
import { Keys } from "@/features/settings/Keys";
import { SignOutHere } from "@/features/sign-in/SignOutButton";
import { isServedByHome, serverOrigin } from "@/net/home/served";
import type { SignedIn } from "@/store/session";

export function Settings({ session }: { readonly session: SignedIn }) {
  // Machines and keys are the account's, of which this machine's own page knows nothing.
  const atHome = isServedByHome();
  return (
    <AccountPage title="Settings">
      {!atHome && (
        <Section title="Machines">
          <Devices />
        </Section>
      )}
      <Section title="Devices at home">
        <HomeDevices user={session.user} />
      </Section>
      {!atHome && (
        <Section title="API keys">
          <Keys user={session.user} />
        </Section>
      )}
      <Section title={atHome ? "This browser" : "Account"}>
        {atHome ? <AtHome session={session} /> : <Account session={session} />}
      </Section>
    </AccountPage>
  );
}

function AtHome({ session }: { readonly session: SignedIn }) {
  return (
    <>
      <p className="text-sm text-muted">
        This page comes from this very machine and speaks to it directly; nothing of it passes the server.
        This browser is signed in until {dateTime(session.expires)}, or until the bridge is started again.
        Machines of the account and API keys are in the settings of{" "}
        <span className="break-all">{serverOrigin()}</span>
      </p>
      <SignOutHere />
    </>
  );
}

function Account({ session }: { readonly session: SignedIn }) {
  const { name, email, user, expires, admin } = session;
  return (
    <>
      <dl className="facts card">
        {name !== null && (
          <>
            <dt>Name</dt>
            <dd>{name}</dd>
          </>
        )}
        {email !== null && (
          <>
            <dt>E-mail</dt>
            <dd>{email}</dd>
          </>
        )}
        <dt>Known here as</dt>
        <dd className="font-mono break-all">{user ?? "unknown"}</dd>
        <dt>Signed in until</dt>
        <dd>{dateTime(expires)}</dd>
      </dl>
      {admin && (
        <p>
          <Link to="/admin">Overview of this server</Link>
        </p>
      )}
      <SignOutHere />
    </>
  );
}
