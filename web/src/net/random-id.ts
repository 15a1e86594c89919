/**
 * Returns 32 hexadecimal digits from the browser's secure source; fit for `c2l-exchange-id` ([A-Za-z0-9_-]{16,64}).
 * `crypto.randomUUID` is not had on plain http:// addresses of a home network.
 */
export function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
