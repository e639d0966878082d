// The entry point of the API documentation at /docs.

import { render } from "preact";
import "../styles/base.css";
import "../styles/frame.css";
import "../styles/controls.css";
import "../styles/docs.css";
import { keepFocus } from "../lib/focus";
import { Docs } from "./Docs";

render(<Docs />, document.getElementById("app")!);
keepFocus();
