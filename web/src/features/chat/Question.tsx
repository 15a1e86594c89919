/** What somebody wrote, and writing it anew. */
import { lazy, Suspense, useId, useState } from "react";
import { AttachmentList } from "@/features/chat/AttachmentList";
import { Branches } from "@/features/chat/Branches";
import { useFocusBack } from "@/features/frame/focus";
import { EditIcon } from "@/features/icons";
import type { Message } from "@/net/home/api";

const EditForm = lazy(async () => ({ default: (await import("@/features/chat/extras")).EditForm }));

interface Props {
  readonly bridgeId: string;
  readonly message: Message;
  readonly siblings: readonly Message[];
  readonly model: string | null;
}

const NAMES: Readonly<Record<string, string>> = {
  user: "You",
  system: "Instructions",
  tool: "A tool's answer",
};

export function Question({ bridgeId, message, siblings, model }: Props) {
  const heading = useId();
  const [editing, setEditing] = useState(false);
  const editButton = useFocusBack<HTMLButtonElement>(editing);
  return (
    <article
      aria-labelledby={heading}
      data-message={message.id}
      tabIndex={-1}
      className="flex flex-col items-end"
    >
      <h2 id={heading} className="sr-only">
        {NAMES[message.role] ?? message.role}
      </h2>
      {editing ? (
        <Suspense fallback={null}>
          <EditForm message={message} model={model} onClose={() => setEditing(false)} />
        </Suspense>
      ) : (
        <>
          {message.attachments.length > 0 && (
            <AttachmentList bridgeId={bridgeId} attachments={message.attachments} />
          )}
          {message.content !== "" && (
            <p className="max-w-[85%] rounded-2xl rounded-br-md bg-tint px-4 py-2.5 leading-relaxed break-words whitespace-pre-wrap">
              {message.content}
            </p>
          )}
          <footer className="flex items-center gap-1">
            <Branches message={message} siblings={siblings} what="question" enabled={model !== null} />
            {message.role === "user" && (
              <button
                ref={editButton}
                type="button"
                className="icon-button disabled:text-edge"
                aria-label="Edit"
                title="Edit"
                disabled={model === null}
                onClick={() => setEditing(true)}
              >
                <EditIcon />
              </button>
            )}
          </footer>
        </>
      )}
    </article>
  );
}
