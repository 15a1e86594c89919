/** Problems that mean something else to somebody at this page than to a program: what to do here. Pure. */
import type { Problem } from "@/net/problem";

const TEXTS: Readonly<Record<string, Pick<Problem, "title" | "detail">>> = {
  "plain-off": {
    title: "Your machine takes sealed requests only",
    detail:
      "What is not sealed could be read by the server in passing, so it is switched off at home. Pair this browser in the settings; other programs go through “cloudtolocalllm connect”.",
  },
  "device-unknown": {
    title: "Your machine does not know this browser",
    detail:
      "It was removed from the list of devices at home, or was never let in. Pair it anew: run “cloudtolocalllm bridge pair-device” on the machine and open the link here.",
  },
  "exchange-unknown": {
    title: "The rest of this answer is not kept any more",
    detail:
      "An answer can be taken up again for ten minutes after its end, until the machine's program is started anew. What had arrived is shown.",
  },
  "ohttp-key": {
    title: "Your machine has new keys",
    detail: "The message was sealed to keys that it does not hold any more. Try again.",
  },
  date: {
    title: "The clocks differ too much",
    detail:
      "Set this device's clock to the right time, and look at your machine's: more than two minutes apart, neither can tell a new message from an old one.",
  },
};

/** Returns a problem in the words of this page. */
export function explainProblem(problem: Problem): Problem {
  const { slug } = problem;
  const text = slug !== null && Object.hasOwn(TEXTS, slug) ? TEXTS[slug] : undefined;
  return { ...problem, ...text };
}
