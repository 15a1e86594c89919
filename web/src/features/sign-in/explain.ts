/** Why signing in failed, in words. Pure. */

export interface Explained {
  readonly title: string;
  readonly detail: string;
}

/** @param code - what the server put into `?error=`; only known codes are told apart, and none is shown. */
export function explainSignInError(code: string): Explained {
  switch (code) {
    case "provider-unavailable":
      return {
        title: "The sign-in service does not answer",
        detail: "Whoever is signed in already stays so. Try again in a few minutes.",
      };
    case "not-allowed":
      return {
        title: "This account may not sign in here",
        detail: "Ask the people who run this server to let it in, or sign in with another account.",
      };
    case "expired":
      return {
        title: "That took too long",
        detail:
          "A sign-in must be completed within ten minutes, in the browser that it began in. Sign in again.",
      };
    case "refused":
      return {
        title: "The sign-in was cancelled",
        detail: "The sign-in service says that it was not completed. You can sign in again.",
      };
    case "rate-limited":
      return {
        title: "Too many sign-ins in too short a time",
        detail: "Wait a minute, then sign in again.",
      };
    default:
      return {
        title: "Signing in failed",
        detail: "Try again. If it stays so, the people who run this server find the reason in its log.",
      };
  }
}
