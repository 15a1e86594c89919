/** One request to connect a machine: who asks, the decision, and what came of it. */
import { useEffect, useState } from "react";
import { Link } from "@/features/frame/Link";
import { Screen } from "@/features/frame/Screen";
import { Trouble } from "@/features/frame/Trouble";
import { dateTime, timeOfDay } from "@/features/frame/times";
import { useTask } from "@/features/frame/useTask";
import { useWaiting } from "@/features/frame/useWaiting";
import { CodeForm } from "@/features/pair/CodeForm";
import { isLoopback } from "@/net/loopback";
import { answerPairingRequest, getPairingRequest, type PairingRequest } from "@/net/pairing";
import { type Problem, ProblemError } from "@/net/problem";
import { checkSession } from "@/store/session";

type Answer = "approve" | "deny";

type Stage =
  | { readonly kind: "looking" }
  | { readonly kind: "missed"; readonly problem: Problem }
  | { readonly kind: "asked"; readonly request: PairingRequest }
  /** It was there, and is not any more. */
  | { readonly kind: "gone" }
  /** `back`: where the program waits that asked; `null` if it learns the answer by itself. */
  | {
      readonly kind: "answered";
      readonly answer: Answer;
      readonly name: string;
      readonly back: string | null;
    };

interface Props {
  readonly id: string;
  /** The code that was typed; `null` for a request by its id. */
  readonly code: string | null;
  /** Another code is to be tried, or the same once more. */
  readonly onCode: (code: string) => void;
}

export function Question({ id, code, onCode }: Props) {
  const [stage, setStage] = useState<Stage>({ kind: "looking" });
  useEffect(() => {
    let left = false;
    const look = async () => {
      const found = await lookUp(id);
      if (!left) setStage(found);
    };
    void look();
    return () => {
      left = true;
    };
  }, [id]);
  switch (stage.kind) {
    case "looking":
      return <Screen title="Looking for the request" busy />;
    case "missed":
      return <Missed problem={stage.problem} code={code} onCode={onCode} />;
    case "asked":
      return <Decision id={id} code={code} request={stage.request} onStage={setStage} />;
    case "gone":
      return <Gone />;
    case "answered":
      return <Outcome {...stage} />;
  }
}

async function lookUp(id: string): Promise<Stage> {
  try {
    return { kind: "asked", request: await getPairingRequest(id) };
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    if (error.problem.status === 401) void checkSession();
    return { kind: "missed", problem: error.problem };
  }
}

interface MissedProps {
  readonly problem: Problem;
  readonly code: string | null;
  readonly onCode: (code: string) => void;
}

function Missed({ problem, code, onCode }: MissedProps) {
  const waiting = useWaiting(problem);
  const unknown = problem.status === 404;
  const title =
    problem.status === 429
      ? "Too many attempts"
      : unknown
        ? "Nothing asks to be connected here"
        : "That did not work";
  return (
    <Screen title={title}>
      {unknown ? (
        <p role="alert">
          {code === null ? "This request" : `The code ${code}`} is not known: it was mistyped, used already,
          or is older than five minutes. The machine shows a new one when the command is run again.
        </p>
      ) : (
        <Trouble problem={problem} />
      )}
      {code === null ? (
        <button type="button" className="button" disabled={waiting} onClick={() => location.reload()}>
          Try again
        </button>
      ) : (
        <CodeForm initial={code} waiting={waiting} onCode={onCode} />
      )}
    </Screen>
  );
}

interface DecisionProps {
  readonly id: string;
  readonly code: string | null;
  readonly request: PairingRequest;
  readonly onStage: (stage: Stage) => void;
}

function Decision({ id, code, request, onStage }: DecisionProps) {
  const { busy, problem, run } = useTask();
  const waiting = useWaiting(problem);
  const decide = (answer: Answer) =>
    run(async () => {
      try {
        const back = await answerPairingRequest(id, answer);
        onStage({ kind: "answered", answer, name: request.name, back });
      } catch (error) {
        if (!(error instanceof ProblemError && error.problem.status === 404)) throw error;
        onStage({ kind: "gone" });
      }
    });
  return (
    <Screen title="Connect this machine to your account?">
      <dl className="facts card">
        <dt>Name</dt>
        <dd>{request.name}</dd>
        <dt>Asks from</dt>
        <dd>{request.address}</dd>
        <dt>Asked</dt>
        <dd>{dateTime(request.requested)}</dd>
        <dt>Version</dt>
        <dd>{request.version}</dd>
        {code !== null && (
          <>
            <dt>Code</dt>
            <dd className="font-mono">{code}</dd>
          </>
        )}
        {request.expires !== null && (
          <>
            <dt>Valid until</dt>
            <dd>{timeOfDay(request.expires)}</dd>
          </>
        )}
      </dl>
      <p>
        <strong className="text-ink">Approve only what you began yourself, just now.</strong>{" "}
        {code === null
          ? "A program on this computer opened this page."
          : "The machine's own terminal must show the same code. Deny a request that somebody sent you."}
      </p>
      <p>
        An approved machine is one of yours: it receives what you and your API keys ask, and its answers are
        shown as your models'. It stays so until you revoke it in the settings.
      </p>
      <Trouble problem={problem} />
      <div className="flex flex-wrap gap-2">
        <button
          type="button"
          className="button button-main"
          disabled={busy || waiting}
          onClick={() => void decide("approve")}
        >
          Approve
        </button>
        <button
          type="button"
          className="button"
          disabled={busy || waiting}
          onClick={() => void decide("deny")}
        >
          Deny
        </button>
      </div>
    </Screen>
  );
}

function Gone() {
  return (
    <Screen title="This request is over">
      <p role="alert">
        It has expired, or was answered elsewhere. To connect the machine, run the command again there.
      </p>
      <Ways />
    </Screen>
  );
}

interface OutcomeProps {
  readonly answer: Answer;
  readonly name: string;
  readonly back: string | null;
}

function Outcome({ answer, name, back }: OutcomeProps) {
  const goesBack = back !== null && isLoopback(back);
  useEffect(() => {
    if (goesBack) location.assign(back);
  }, [goesBack, back]);
  const approved = answer === "approve";
  return (
    <Screen title={approved ? "Approved" : "Denied"}>
      <p role="status" className="break-words">
        {approved
          ? `${name} is one of your machines now. Its terminal says how it goes on.`
          : `${name} was not connected, and was told so.`}
      </p>
      {back !== null && (
        <p role={goesBack ? undefined : "alert"}>
          {goesBack
            ? "Going back to the program that asked…"
            : "The program that asked wants to be told at an address that is not on this computer. It was not opened; if you do not know why, revoke the machine in the settings."}
        </p>
      )}
      <Ways />
    </Screen>
  );
}

function Ways() {
  return (
    <p className="flex flex-wrap gap-2">
      <Link to="/settings" className="button">
        See your machines
      </Link>
      <Link to="/" className="button">
        To the chat
      </Link>
    </p>
  );
}
