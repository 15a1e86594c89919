/** The way home: what the server says of machine and engine, and whether the server itself can be heard. */
import { create } from "zustand";
import { EventStream } from "@/net/event-stream";
import { decodeStatus, type WayStatus } from "@/net/status";
import { checkSession } from "@/store/session";

interface WayStore {
  /** `null` before the first document. */
  readonly status: WayStatus | null;
  readonly contact: "connecting" | "heard" | "lost";
}

export const useWay = create<WayStore>(() => ({ status: null, contact: "connecting" }));

/** Follows the status until the returned function is called. */
export function followWay(): () => void {
  const stream = new EventStream("/api/streaming/events", {
    onDocument(value) {
      try {
        useWay.setState({ status: decodeStatus(value), contact: "heard" });
      } catch {
        // A document of a newer server that this page cannot read: keep the last true status.
      }
    },
    onLost(status) {
      useWay.setState({ contact: "lost" });
      if (status === 401) void checkSession();
    },
  });
  return () => {
    stream.close();
    useWay.setState({ status: null, contact: "connecting" });
  };
}

/** Shows at once what a call to the server has just changed; the next document says the same. */
export function amendBridge(id: string, change: { readonly name: string } | "removed"): void {
  const { status } = useWay.getState();
  if (status === null) return;
  const bridges =
    change === "removed"
      ? status.bridges.filter((bridge) => bridge.id !== id)
      : status.bridges.map((bridge) => (bridge.id === id ? { ...bridge, ...change } : bridge));
  useWay.setState({ status: { ...status, bridges } });
}
