/** A pairing link as a code to be scanned. Dark on light whatever the scheme is: not every camera reads the other way. */
import { generate } from "lean-qr";

/** Modules around it, as ISO/IEC 18004 wants. */
const QUIET = 4;

export function PairingCode({ text }: { readonly text: string }) {
  const code = generate(text);
  const size = code.size + 2 * QUIET;
  return (
    <svg
      role="img"
      aria-label="The link as a QR code"
      viewBox={`0 0 ${size} ${size}`}
      shapeRendering="crispEdges"
      className="w-full max-w-64 rounded-lg"
    >
      <path fill="#fff" d={`M0 0h${size}v${size}h-${size}z`} />
      <path fill="#000" d={outline(code)} />
    </svg>
  );
}

function outline(code: ReturnType<typeof generate>): string {
  let path = "";
  for (let y = 0; y < code.size; y += 1) {
    for (let x = 0; x < code.size; x += 1) {
      if (code.get(x, y)) path += `M${x + QUIET} ${y + QUIET}h1v1h-1z`;
    }
  }
  return path;
}
