/** What goes with a message. */
import { useEffect, useState } from "react";
import { ClipIcon } from "@/features/icons";
import type { Attached } from "@/net/home/api";
import { addressOfAttachment, isPicture } from "@/store/attachments";

interface Props {
  readonly bridgeId: string;
  readonly attachments: readonly Attached[];
}

export function AttachmentList({ bridgeId, attachments }: Props) {
  return (
    <ul aria-label="Attachments" className="mb-1 flex max-w-[85%] flex-wrap justify-end gap-2">
      {attachments.map((attached, index) => (
        // The same file may be attached twice; its place is what counts.
        <li key={index} className="max-w-full">
          {isPicture(attached.media_type) ? (
            <Picture bridgeId={bridgeId} attached={attached} />
          ) : (
            <FileChip bridgeId={bridgeId} attached={attached} />
          )}
        </li>
      ))}
    </ul>
  );
}

interface ItemProps {
  readonly bridgeId: string;
  readonly attached: Attached;
}

function Picture({ bridgeId, attached }: ItemProps) {
  const [address, setAddress] = useState<string | null>(null);
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    let left = false;
    addressOfAttachment(bridgeId, attached).then(
      (made) => {
        if (!left) setAddress(made);
      },
      () => {
        if (!left) setFailed(true);
      },
    );
    return () => {
      left = true;
    };
  }, [bridgeId, attached]);
  const name = attached.name || "Picture";
  if (failed) return <FileChip bridgeId={bridgeId} attached={attached} />;
  if (address === null)
    return <span className="block size-24 rounded-xl bg-sunken" role="img" aria-label={`${name}, loading`} />;
  return <img src={address} alt={name} className="max-h-64 max-w-full rounded-xl border border-line" />;
}

function FileChip({ bridgeId, attached }: ItemProps) {
  const [failed, setFailed] = useState(false);
  const name = attached.name || "file";
  const save = async () => {
    try {
      setFailed(false);
      saveAs(await addressOfAttachment(bridgeId, attached), name);
    } catch {
      setFailed(true);
    }
  };
  return (
    <button type="button" className="button max-w-full" title={`Save ${name}`} onClick={() => void save()}>
      <ClipIcon />
      <span className="truncate">{name}</span>
      {failed && <span className="text-bad">not there</span>}
    </button>
  );
}

/** Has the browser save what an address of this page leads to. */
export function saveAs(address: string, name: string): void {
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
}
