/** Where the page may send the browser to. Pure. */

const LOOPBACK_HOSTS = new Set(["127.0.0.1", "localhost", "[::1]"]);

function parse(address: string): URL | null {
  try {
    const url = new URL(address);
    return url.username === "" && url.password === "" ? url : null;
  } catch {
    return null;
  }
}

/** True for plain http on this very computer, as RFC 8252 §7.3 has it for programs that wait for an approval. */
export function isLoopback(address: string): boolean {
  const url = parse(address);
  return url !== null && url.protocol === "http:" && LOOPBACK_HOSTS.has(url.hostname);
}

/** True for where a provider's own session may be ended: https, or a provider on this computer. */
export function isProviderAddress(address: string): boolean {
  return parse(address)?.protocol === "https:" || isLoopback(address);
}
