/** Model output becomes DOM here, and only here. Whatever it says, it loads nothing, runs nothing and looks like text. */
import DOMPurify from "dompurify";

const ALLOWED_TAGS = [
  ..."a b blockquote br code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i img input ins kbd li mark".split(
    " ",
  ),
  ..."ol p pre q s small span strong sub summary sup table tbody td tfoot th thead tr u ul".split(" "),
];
/** No class, id, name or style: an answer must not be able to dress as the page. */
const ALLOWED_ATTR = "align alt checked colspan data-lang href open rowspan src start title type".split(" ");
/** Attributes that hold no address; without this they would have to look like one. */
const ADD_URI_SAFE_ATTR = "align checked colspan data-lang open rowspan start type".split(" ");
/** No relative addresses: a link in an answer must not name a route of this server. */
const ALLOWED_URI_REGEXP = /^(?:https?:|mailto:)/i;

const purifier = DOMPurify(window);
purifier.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "A") {
    node.setAttribute("rel", "noopener noreferrer");
    node.setAttribute("target", "_blank");
  } else if (node.tagName === "IMG") {
    holdImage(node);
  } else if (node.tagName === "INPUT") {
    // A task list's box; an answer must not ask for a password.
    node.setAttribute("type", "checkbox");
    node.setAttribute("disabled", "");
    node.setAttribute("aria-label", node.hasAttribute("checked") ? "done" : "not done");
  }
});

/** Takes the address from an image before it enters the document, where it would be loaded and so tell of the chat. */
function holdImage(image: Element): void {
  const source = image.getAttribute("src") ?? "";
  if (source.startsWith("data:image/")) return;
  image.removeAttribute("src");
  image.setAttribute("data-remote", source);
}

/** Returns the HTML as DOM: text markup only, links that open elsewhere, a link in place of each remote image. */
export function sanitise(html: string): DocumentFragment {
  const fragment = purifier.sanitize(html, {
    ALLOWED_TAGS,
    ALLOWED_ATTR,
    ADD_URI_SAFE_ATTR,
    ALLOWED_URI_REGEXP,
    ALLOW_ARIA_ATTR: false,
    ALLOW_DATA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  });
  for (const image of fragment.querySelectorAll("img[data-remote]")) image.replaceWith(imageLink(image));
  return fragment;
}

function imageLink(image: Element): Node {
  const source = image.getAttribute("data-remote") ?? "";
  const label = image.getAttribute("alt") || "no description";
  // A link around an image would hold a link in a link: only its text stays.
  if (source === "" || image.closest("a") !== null) return document.createTextNode(`[image: ${label}]`);
  const link = document.createElement("a");
  link.href = source;
  link.rel = "noopener noreferrer";
  link.target = "_blank";
  link.textContent = `Image: ${label} (not loaded; opens ${hostOf(source)})`;
  return link;
}

function hostOf(address: string): string {
  try {
    return new URL(address).host;
  } catch {
    return "another site";
  }
}
