// An invariant as an equation.

import type { JSX } from "preact";
import { Fragment } from "preact";
import { count } from "../lib/format";
import type { Balance } from "../lib/metrics";
import { Icon } from "./icons";

export function BalanceRow({ balance }: { balance: Balance }): JSX.Element {
  const isEven = balance.difference === 0;
  return (
    <div class="balance">
      <span class={`verdict ${isEven ? "verdict-good" : "verdict-bad"}`}>
        <Icon name={isEven ? "check" : "warn"} />
        {isEven ? "balanced" : `${count(Math.abs(balance.difference))} ${balance.difference > 0 ? "missing" : "too many"}`}
      </span>
      <span class="term term-left"><b class="num">{count(balance.left.value)}</b> <span>{balance.left.label}</span></span>
      <span class="operator" aria-label="equals">=</span>
      {balance.right.map((term, index) => (
        <Fragment key={term.label}>
          {index > 0 && <span class="operator" aria-label="plus">+</span>}
          <span class={`term ${term.value === 0 ? "term-zero" : ""}`}><b class="num">{count(term.value)}</b> <span>{term.label}</span></span>
        </Fragment>
      ))}
    </div>
  );
}
