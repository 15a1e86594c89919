/** The frame of the pages beside the chat. */
import { type ReactNode, useId } from "react";
import { Link } from "@/features/frame/Link";
import { useHeadingFocus } from "@/features/frame/Screen";
import { useTitle } from "@/features/frame/useTitle";
import { BackIcon } from "@/features/icons";

interface Props {
  readonly title: string;
  readonly children: ReactNode;
}

export function AccountPage({ title, children }: Props) {
  const heading = useHeadingFocus(title);
  useTitle(title);
  return (
    <div className="flex h-full flex-col">
      <header className="flex h-14 shrink-0 items-center gap-1 border-b border-line px-3">
        <Link to="/" className="icon-button" label="Back to the chat">
          <BackIcon />
        </Link>
        <h1 ref={heading} tabIndex={-1} className="font-semibold outline-none">
          {title}
        </h1>
      </header>
      <main className="min-h-0 flex-1 overflow-y-auto">
        <div className="mx-auto max-w-3xl space-y-10 px-4 py-6">{children}</div>
      </main>
    </div>
  );
}

interface SectionProps {
  readonly title: string;
  readonly children: ReactNode;
}

export function Section({ title, children }: SectionProps) {
  const heading = useId();
  return (
    <section aria-labelledby={heading} className="space-y-4">
      <h2 id={heading} className="text-lg font-semibold">
        {title}
      </h2>
      {children}
    </section>
  );
}
