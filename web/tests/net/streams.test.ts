import { describe, expect, it } from "vitest";
import { LineSplitter } from "@/net/lines";
import { NdjsonParser } from "@/net/ndjson";
import { SseParser } from "@/net/sse";
import { chunkings, pushAll } from "../support/chunkings";

const encode = (text: string) => new TextEncoder().encode(text);

describe("LineSplitter", () => {
  const text = "plain\ncarriage\r\nbare\rempty\n\n\r\nümläut 🦙\nrest";
  const lines = ["plain", "carriage", "bare", "empty", "", "", "ümläut 🦙"];

  it.each(chunkings(encode(text)))("gives the same lines in $name", ({ chunks }) => {
    const splitter = new LineSplitter();
    expect(pushAll(splitter, chunks)).toEqual(lines);
    expect(splitter.end()).toBe("rest");
  });

  it("has nothing left after a line end", () => {
    const splitter = new LineSplitter();
    splitter.push(encode("a\n"));
    expect(splitter.end()).toBeUndefined();
  });

  it("refuses an endless line instead of keeping it", () => {
    const splitter = new LineSplitter();
    const megabyte = encode("x".repeat(1024 * 1024));
    expect(() => {
      for (let count = 0; count < 9; count += 1) splitter.push(megabyte);
    }).toThrow(/expected lines of at most/);
  });
});

describe("SseParser", () => {
  const text =
    ': a comment\n\ndata: one\n\nevent: status\r\ndata:two\r\ndata:  three\r\nid: 7\r\n\r\nretry: 5\ndata\n\nevent: lost\n\ndata: "🦙"\n\ndata: unfinished';
  const events = [
    { event: "message", data: "one" },
    { event: "status", data: "two\n three" },
    { event: "message", data: "" },
    { event: "message", data: '"🦙"' },
  ];

  it.each(chunkings(encode(text)))("gives the same events in $name", ({ chunks }) => {
    expect(pushAll(new SseParser(), chunks)).toEqual(events);
  });
});

describe("NdjsonParser", () => {
  const text = '{"message":{"content":"ü🦙"}}\n\n{"done":false}\r\n{"done":true}';

  it.each(chunkings(encode(text)))("gives the same values in $name", ({ chunks }) => {
    const parser = new NdjsonParser();
    const values = [...pushAll(parser, chunks), ...parser.end()];
    expect(values).toEqual([{ message: { content: "ü🦙" } }, { done: false }, { done: true }]);
  });

  it("throws on what is not JSON", () => {
    expect(() => new NdjsonParser().push(encode("nonsense\n"))).toThrow(SyntaxError);
  });
});
