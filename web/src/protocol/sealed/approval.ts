/** Approvals: a paired device vouches for a further one; the form is described in the Python twin. */
import { type Bytes, toBase64Url } from "@/protocol/sealed/bytes";
import { type Device, sign } from "@/protocol/sealed/device";
import { writeJws } from "@/protocol/sealed/jws";

/** Who is let in, where and when. */
export interface Approval {
  /** Id of the device that is approved. */
  readonly device: string;
  /** Fingerprint of the bridge's identity. */
  readonly bridge: Bytes;
  /** Seconds since the epoch. */
  readonly issued: number;
  readonly name: string;
}

/** Returns an approval signed by the approving device. The bridge verifies it. */
export async function signApproval(approval: Approval, by: Device): Promise<string> {
  const { device, bridge, issued, name } = approval;
  const claims = { iss: by.id, sub: device, aud: toBase64Url(bridge), iat: issued, name };
  const header = { alg: "ES256", typ: "c2l-approval+jwt" };
  return await writeJws(header, claims, (message) => sign(by.privateKey, message));
}
