/** For whoever is signed in while another attempt to sign in failed. */
import { Link } from "@/features/frame/Link";
import { Screen } from "@/features/frame/Screen";
import { explainSignInError } from "@/features/sign-in/explain";

interface Props {
  readonly error: string;
  readonly returnTo: string;
}

export function SignInFailed({ error, returnTo }: Props) {
  const { title, detail } = explainSignInError(error);
  return (
    <Screen title={title}>
      <p role="alert">{detail}</p>
      <p>In this browser you are still signed in as before.</p>
      <Link to={returnTo} className="button mt-2">
        Go on
      </Link>
    </Screen>
  );
}
