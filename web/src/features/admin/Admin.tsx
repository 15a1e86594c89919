/** The overview for admins: how the server is, what happened, and what may be done about a user. */
import { useEffect, useRef, useState } from "react";
import { UserActions } from "@/features/admin/UserActions";
import { AccountPage, Section } from "@/features/frame/AccountPage";
import { Trouble } from "@/features/frame/Trouble";
import { dateTime } from "@/features/frame/times";
import { useTask } from "@/features/frame/useTask";
import { RetryIcon } from "@/features/icons";
import { type AuditEvent, getAudit, getOverview, type Overview } from "@/net/admin";

const EVENTS = 100;

export function Admin() {
  const [overview, setOverview] = useState<Overview | null>(null);
  const [events, setEvents] = useState<readonly AuditEvent[] | null>(null);
  const [user, setUser] = useState("");
  const field = useRef<HTMLInputElement>(null);
  const figures = useTask();
  const audit = useTask();
  const look = () => {
    void figures.run(async () => setOverview(await getOverview()));
    void audit.run(async () => setEvents(await getAudit(EVENTS)));
  };
  // Asked when the page opens, then by the button.
  useEffect(look, []);
  const choose = (chosen: string) => {
    setUser(chosen);
    field.current?.focus();
  };
  return (
    <AccountPage title="Overview">
      <Section title="This server">
        <Trouble problem={figures.problem} />
        {overview !== null && <Figures overview={overview} />}
        <button type="button" className="button" disabled={figures.busy || audit.busy} onClick={look}>
          <RetryIcon />
          Look again
        </button>
      </Section>
      <Section title="A user">
        <UserActions field={field} user={user} onUser={setUser} onDone={look} />
      </Section>
      <Section title="Security events">
        <Trouble problem={audit.problem} />
        {events !== null && <Events events={events} onUser={choose} />}
      </Section>
    </AccountPage>
  );
}

function Figures({ overview }: { readonly overview: Overview }) {
  const { bridgesConnected, instances, usersActive, version, signUp, provider } = overview;
  return (
    <dl className="facts card">
      <dt>Machines connected</dt>
      <dd>{bridgesConnected ?? "unknown"}</dd>
      <dt>Streaming proxies</dt>
      <dd>{instances ?? "unknown"}</dd>
      <dt>Active users</dt>
      <dd>{usersActive ?? "unknown"}</dd>
      <dt>Sign-in</dt>
      <dd>{provider ?? "by one-time links"}</dd>
      <dt>Who may sign up</dt>
      <dd>{signUpText(signUp)}</dd>
      <dt>Version</dt>
      <dd>{version}</dd>
    </dl>
  );
}

function signUpText(policy: string): string {
  switch (policy) {
    case "open":
      return "everybody with an account at the sign-in service";
    case "allow-list":
      return "whoever is on the list";
    case "closed":
      return "nobody new";
    default:
      return policy;
  }
}

interface EventsProps {
  readonly events: readonly AuditEvent[];
  readonly onUser: (user: string) => void;
}

function Events({ events, onUser }: EventsProps) {
  if (events.length === 0) return <p className="text-sm text-muted">There are none yet.</p>;
  return (
    <section
      aria-label="The latest events"
      // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
      tabIndex={0}
      className="overflow-x-auto rounded-xl border border-line"
    >
      <table className="w-full text-left text-sm [&_td]:px-3 [&_td]:py-1.5 [&_th]:px-3 [&_th]:py-2">
        <caption className="sr-only">The latest {EVENTS} security events, newest first</caption>
        <thead className="bg-raised">
          <tr>
            <th scope="col">Time</th>
            <th scope="col">Event</th>
            <th scope="col">Outcome</th>
            <th scope="col">User</th>
          </tr>
        </thead>
        <tbody>
          {events.map((event, index) => (
            // The rows are only ever replaced as a whole.
            <tr key={index} className="border-t border-line">
              <td className="whitespace-nowrap">{dateTime(event.time)}</td>
              <td>{event.event}</td>
              <td className={event.outcome === "failure" ? "text-bad" : ""}>
                {event.outcome}
                {event.reason !== null && `: ${event.reason}`}
              </td>
              <td>
                {event.user !== null && (
                  <button
                    type="button"
                    className="link font-mono"
                    aria-label={`Choose ${event.user}`}
                    onClick={() => event.user !== null && onUser(event.user)}
                  >
                    {event.user}
                  </button>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
