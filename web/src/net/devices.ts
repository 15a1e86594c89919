/** The typed client for the user's machines. The list itself comes with the status. */
import { call, segment } from "@/net/call";
import { ProblemError } from "@/net/problem";

export async function renameDevice(id: string, name: string): Promise<void> {
  await call("PATCH", `/api/bridge/${segment(id)}`, { name });
}

export async function revokeDevice(id: string): Promise<void> {
  await removing(`/api/bridge/${segment(id)}`);
}

/** Deletes; what is not there any more is deleted already. */
export async function removing(path: string): Promise<void> {
  try {
    await call("DELETE", path);
  } catch (error) {
    if (!(error instanceof ProblemError && error.problem.status === 404)) throw error;
  }
}
