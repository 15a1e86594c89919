/** A page with one thing to say, and perhaps to decide. */
import { type ReactNode, useEffect, useRef } from "react";
import { useTitle } from "@/features/frame/useTitle";
import { Mark } from "@/features/icons";
import { usePlace } from "@/store/location";

interface Props {
  readonly title: string;
  readonly busy?: boolean;
  readonly children?: ReactNode;
}

export function Screen({ title, busy = false, children }: Props) {
  const heading = useHeadingFocus(title);
  useTitle(title);
  return (
    <main className="grid h-full place-items-center overflow-y-auto p-4" aria-busy={busy}>
      {/* What is over in a moment is not worth a flicker. */}
      <div className={`w-full max-w-md space-y-6 ${busy ? "appear-late" : ""}`}>
        <div className="flex items-center gap-3">
          <Mark className="size-10" />
          <p className="font-semibold">CloudToLocalLLM</p>
        </div>
        <div className="space-y-3 text-muted">
          <h1
            ref={heading}
            tabIndex={-1}
            className="text-2xl leading-tight font-semibold text-balance text-ink outline-none"
          >
            {title}
          </h1>
          {children}
        </div>
      </div>
    </main>
  );
}

/** Moves the focus to a heading that came by a link of ours, or in place of another; not when the page opens. */
export function useHeadingFocus(title: string) {
  const heading = useRef<HTMLHeadingElement>(null);
  const shown = useRef<string | null>(null);
  useEffect(() => {
    const replaced = shown.current !== null && shown.current !== title;
    if (replaced || usePlace.getState().within) heading.current?.focus();
    shown.current = title;
  }, [title]);
  return heading;
}
