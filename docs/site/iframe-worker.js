// A page that is opened as a file may start no worker, and the search of these pages is one: here it runs in a hidden frame.
// Only what the search needs of a worker: `postMessage`, `onmessage`, `onerror`, `terminate`. The generator would have the page load such a
// script from a network; it leaves that away where the settings name one called iframe-worker.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      inside.postMessage = (data) => setTimeout(() => this.onmessage?.({ data }));
      this.started = new Promise((resolve) => {
        const script = inside.document.createElement("script");
        script.src = new URL(url, document.baseURI);
        script.onload = () => resolve(inside);
        script.onerror = (event) => this.onerror?.(event);
        inside.document.body.append(script);
      });
      this.terminate = () => frame.remove();
    }

    postMessage(data) {
      this.started.then((inside) => inside.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
