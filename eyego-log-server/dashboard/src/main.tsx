// The entry point of the dashboard.

import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import "./styles/base.css";
import "./styles/frame.css";
import "./styles/controls.css";
import "./styles/data.css";
import "./styles/pipeline.css";
import "./styles/forced.css";
import { App } from "./app";
import { keepFocus } from "./lib/focus";

const app = document.getElementById("app")!;
// What the page shows until the script has run.
app.replaceChildren();
render(<App />, app);
keepFocus();
