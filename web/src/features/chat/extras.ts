/** What a chat needs only now and then, in one piece that is loaded once the page stands. */
export { EditForm } from "@/features/chat/EditForm";
export { Actions, RenameForm } from "@/features/chat/ItemActions";
export { SearchResults } from "@/features/chat/SearchResults";
export { Transfer } from "@/features/chat/Transfer";
