/** Which method, path, field names and values are valid in a Binary HTTP message; as the Python twin's `fields`. */
import { malformed } from "@/protocol/sealed/errors";

export type Field = readonly [name: string, value: string];
/** Names and values, in order; a character is a byte. */
export type Fields = readonly Field[];

const OF_CONNECTION = /^(connection|proxy-connection|keep-alive|transfer-encoding|upgrade|te)$/;

export function checkField([name, value]: Field): void {
  if (!/^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(name)) throw malformed("a field name in lower case");
  if (/[\0\r\n]|^[ \t]|[ \t]$/.test(value)) {
    throw malformed("a field value without NUL, CR, LF and surrounding blanks");
  }
  if (OF_CONNECTION.test(name)) throw malformed("no field that belongs to a connection");
}

export function checkControl(method: string, scheme: string, authority: string, path: string): void {
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(method)) throw malformed("a token as the method");
  if (!/^[a-z][a-z0-9+.-]*$/.test(scheme)) throw malformed("a scheme in lower case");
  if (!/^[!-~]*$/.test(authority)) throw malformed("an authority of visible ASCII");
  if (!/^\/[!-~]*$/.test(path) && !(path === "*" && method === "OPTIONS")) {
    throw malformed("a path of visible ASCII that begins with /");
  }
}

export function checkStatus(status: number): void {
  if (status < 100 || status > 599 || status === 101) throw malformed("a status of 100 to 599 but 101");
}

/** Returns the value of a field that may stand once. */
export function single(fields: Fields, name: string): string | undefined {
  const found = fields.filter(([candidate]) => candidate === name);
  if (found.length > 1) throw malformed(`${name} once`);
  return found[0]?.[1];
}
