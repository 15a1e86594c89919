/** The pages beside the chat, in one piece that is loaded when one of them is opened. */
export { Admin } from "@/features/admin/Admin";
export { Pair } from "@/features/pair/Pair";
export { Settings } from "@/features/settings/Settings";
