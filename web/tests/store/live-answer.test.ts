import { expect, it } from "vitest";
import { LiveAnswer } from "@/store/live-answer";

const answer = () =>
  new LiveAnswer(
    null,
    () => 0,
    () => {},
  );

it("tells that the engine gets back to a place after the bridge was started anew", () => {
  const live = answer();
  const seen = [live.phase];
  const note = () => seen.push(live.phase);
  live.is("streaming");
  live.take("content", "Once upon");
  note();
  live.reattaching(true);
  note();
  live.reattaching(false);
  live.is("queued");
  note();
  live.is("loading");
  note();
  live.is("streaming");
  live.take("content", " a time");
  note();
  expect(seen).toEqual(["waiting", "writing", "reattaching", "returning", "returning", "writing"]);
});

it("tells no such thing of what this browser kept, or of an answer that has ended", () => {
  const live = answer();
  live.restore([{ kind: "content", text: "Once upon" }]);
  expect(live.phase).toBe("writing");
  live.is("done");
  expect(live.phase).toBe("writing");
});
