/** A link to another of our pages, without loading the page anew. */
import type { MouseEvent, ReactNode } from "react";
import { navigate } from "@/store/location";

interface Props {
  readonly to: string;
  readonly className?: string;
  readonly label?: string;
  /** Done first. */
  readonly onFollow?: () => void;
  readonly children: ReactNode;
}

export function Link({ to, className = "link", label, onFollow, children }: Props) {
  const onClick = (event: MouseEvent) => {
    // Everything but a plain click is the browser's: a new tab, a download, a window.
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    onFollow?.();
    navigate(to);
  };
  return (
    <a href={to} className={className} aria-label={label} title={label} onClick={onClick}>
      {children}
    </a>
  );
}
