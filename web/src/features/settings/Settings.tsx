/** The settings: machines, the devices that are paired with them, API keys, the account. */
import { AccountPage, Section } from "@/features/frame/AccountPage";
import { Link } from "@/features/frame/Link";
import { dateTime } from "@/features/frame/times";
import { Devices } from "@/features/settings/Devices";
import { HomeDevices } from "@/features/settings/HomeDevices";
import { Keys } from "@/features/settings/Keys";
import { SignOutHere } from "@/features/sign-in/SignOutButton";
import type { SignedIn } from "@/store/session";

export function Settings({ session }: { readonly session: SignedIn }) {
  return (
    <AccountPage title="Settings">
      <Section title="Machines">
        <Devices />
      </Section>
      <Section title="Devices at home">
        <HomeDevices user={session.user} />
      </Section>
      <Section title="API keys">
        <Keys user={session.user} />
      </Section>
      <Section title="Account">
        <Account session={session} />
      </Section>
    </AccountPage>
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
