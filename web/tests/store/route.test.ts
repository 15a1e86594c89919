import { describe, expect, it } from "vitest";
import { ownAddress, parseRoute } from "@/store/route";

describe("parseRoute", () => {
  it.each([
    ["/", "", { page: "chat" }],
    ["/settings", "?x=1", { page: "settings" }],
    ["/admin", "", { page: "admin" }],
    ["/pair", "", { page: "pair", code: null, request: null, home: null }],
    ["/pair", "?code=BCDF-GHJK", { page: "pair", code: "BCDF-GHJK", request: null, home: null }],
    ["/pair", "?request=abc&code=", { page: "pair", code: null, request: "abc", home: null }],
    ["/pair", "?home=br_1-x", { page: "pair", code: null, request: null, home: "br_1-x" }],
    ["/pair", "?home=../x", { page: "pair", code: null, request: null, home: null }],
    ["/sign-in", "", { page: "sign-in", error: null, returnTo: "/" }],
    [
      "/sign-in",
      "?error=expired&return_to=%2Fpair%3Fcode%3DX",
      { page: "sign-in", error: "expired", returnTo: "/pair?code=X" },
    ],
    ["/other", "", { page: "unknown" }],
    ["/constructor", "", { page: "unknown" }],
    ["/settings/", "", { page: "unknown" }],
  ])("%s%s", (path, query, route) => {
    expect(parseRoute(path, query)).toEqual(route);
  });
});

describe("ownAddress", () => {
  it.each(["/", "/settings", "/admin", "/pair?request=a-b_c", "/pair?code=BCDF-GHJK"])(
    "keeps %s",
    (address) => {
      expect(ownAddress(address)).toBe(address);
    },
  );

  it.each([
    null,
    "",
    "settings",
    "//example.com",
    "/\\example.com",
    "\\/example.com",
    "/\t/example.com",
    "https://example.com/",
    "javascript:alert(1)",
    "/api/auth/oidc/start",
    "/sign-in?return_to=/sign-in",
    "/settings/../api/auth/session",
    "/pair?code=a b",
  ])("goes to the chat for %j", (value) => {
    expect(ownAddress(value)).toBe("/");
  });

  it("never leaves our origin, whatever it is made of", () => {
    const pieces = [
      "/",
      "\\",
      "@",
      ":",
      "//",
      "example.com",
      "settings",
      "?",
      "#",
      "%2f",
      ".",
      "..",
      "\n",
      "http:",
    ];
    for (const a of pieces)
      for (const b of pieces)
        for (const c of pieces)
          for (const d of pieces) {
            const url = new URL(ownAddress(`${a}${b}${c}${d}`), "https://own.invalid");
            expect(url.origin).toBe("https://own.invalid");
            expect(["/", "/settings"]).toContain(url.pathname);
          }
  });
});
