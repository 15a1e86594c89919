/** The title in the browser's tab. */
import { useEffect } from "react";

const PRODUCT = "CloudToLocalLLM";

export function useTitle(title: string | null): void {
  useEffect(() => {
    document.title = title === null ? PRODUCT : `${title} – ${PRODUCT}`;
  }, [title]);
}
