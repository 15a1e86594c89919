/** Stands for a part of the page that could not be loaded: the network is gone, or a newer version is served. */
import { Component, type ReactNode } from "react";
import { Screen } from "@/features/frame/Screen";

interface Props {
  readonly children: ReactNode;
}

export class LoadBoundary extends Component<Props, { readonly failed: boolean }> {
  override state = { failed: false };

  static getDerivedStateFromError() {
    return { failed: true };
  }

  override render() {
    if (!this.state.failed) return this.props.children;
    return (
      <Screen title="This page could not be shown">
        <p>Check this device's network connection, then load the page again.</p>
        <button type="button" className="button mt-2" onClick={() => location.reload()}>
          Load again
        </button>
      </Screen>
    );
  }
}
