// The filters as chips, and a field that turns text into a filter.

import type { JSX } from "preact";
import { useId, useState } from "preact/hooks";
import { isFocusMoving } from "../lib/focus";
import { type Filter, parseFilters, withFilter, withoutFilter } from "../lib/route";
import { exact, visible } from "../lib/json";
import { Icon } from "./icons";

interface Props {
  params: URLSearchParams;
  /** Actions and metadata paths seen in the data, offered while typing. */
  actions?: string[];
  paths?: string[];
  onChange: (params: URLSearchParams) => void;
}

interface Suggestion {
  label: string;
  /** `null` completes the text instead of adding a filter. */
  filter: Filter | null;
  text: string;
}

const NAMES: Record<string, string> = { userId: "User", action: "Action" };

export function filterName(name: string): string {
  return NAMES[name] ?? name.replace(/^metadata\./, "");
}

/** Reads `userId=…`, `action=…` or `metadata.path=…`. */
function parseText(text: string): Filter | null {
  const [, name = "", value = ""] = /^\s*([^=]+?)\s*=(.*)$/s.exec(text) ?? [];
  if (name === "") return null;
  if (/^(user|userid)$/i.test(name)) return { name: "userId", value };
  if (/^action$/i.test(name)) return { name: "action", value };
  return { name: name.startsWith("metadata.") ? name : `metadata.${name}`, value };
}

/** Offers the value without and with the spaces around it. */
function suggestValue({ name, value }: Filter, actions: string[], text: string): Suggestion[] {
  const trimmed = value.trim();
  if (name === "userId" && value === "") return [];
  if (name === "action" && trimmed === "") {
    return actions.map((action) => ({ label: `Action is ${action}`, filter: { name, value: action }, text }));
  }
  const label = (shown: string): string => `${filterName(name)} is ${shown}`;
  const exact = { label: label(JSON.stringify(value)), filter: { name, value }, text };
  const plain = { label: label(trimmed), filter: { name, value: trimmed }, text };
  if (trimmed === value) return [plain];
  return name === "userId" && trimmed === "" ? [exact] : [plain, exact];
}

function suggest(text: string, actions: string[], paths: string[]): Suggestion[] {
  const parsed = parseText(text);
  if (parsed) return suggestValue(parsed, actions, text);
  const word = text.trim();
  const matches = (candidate: string): boolean => candidate.toLowerCase().includes(word.toLowerCase());
  const known = actions.filter(matches).slice(0, 6).map((value) => ({
    label: `Action is ${value}`, filter: { name: "action", value }, text: value,
  }));
  const free = word === "" || actions.includes(word) ? [] : [{ label: `Action is ${word}`, filter: { name: "action", value: word }, text: word }];
  const user = word === "" ? [] : [{ label: `User is ${word}`, filter: { name: "userId", value: word }, text: word }];
  const open = paths.filter(matches).slice(0, 6).map((path) => ({
    label: `metadata.${path} = …`, filter: null, text: `metadata.${path}=`,
  }));
  const isUpper = word !== "" && word === word.toUpperCase() && /[A-Z]/.test(word);
  return isUpper ? [...known, ...free, ...user, ...open] : [...user, ...known, ...free, ...open];
}

export function FilterBar({ params, actions = [], paths = [], onChange }: Props): JSX.Element {
  const [text, setText] = useState("");
  const [isOpen, setOpen] = useState(false);
  /** None is active while the text is empty, so that Enter adds no filter by accident. */
  const [active, setActive] = useState(-1);
  const list = useId();
  const filters = parseFilters(params);
  const suggestions = isOpen ? suggest(text, actions, paths) : [];

  const type = (value: string): void => {
    setText(value);
    setActive(value.trim() === "" ? -1 : 0);
    setOpen(true);
  };
  const pick = (suggestion: Suggestion | undefined): void => {
    if (!suggestion) return;
    if (suggestion.filter === null) return type(suggestion.text);
    onChange(withFilter(params, suggestion.filter));
    setText("");
    setActive(-1);
    setOpen(false);
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    const last = filters.at(-1);
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!isOpen) return setOpen(true);
      const { length } = suggestions;
      const next = event.key === "ArrowDown" ? active + 1 : active <= 0 ? length - 1 : active - 1;
      if (length > 0) setActive(next % length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      pick(suggestions[active]);
    } else if (event.key === "Escape" && (isOpen || text !== "")) {
      event.stopPropagation();
      setOpen(false);
      setActive(-1);
      setText("");
    } else if (event.key === "Backspace" && text === "" && last) {
      onChange(withoutFilter(params, last));
    }
  };

  return (
    <div class="filters" role="search">
      <Icon name="search" />
      {filters.map((filter) => (
        <span class="chip" key={`${filter.name}=${filter.value}`}>
          <span class="chip-name">{visible(filterName(filter.name))}</span>
          <span class="chip-value" dir="auto">{filter.value === "" ? '""' : exact(filter.value)}</span>
          <button type="button" aria-label={`Remove the filter ${filterName(filter.name)} ${exact(filter.value)}`} onClick={() => onChange(withoutFilter(params, filter))}>
            <Icon name="close" />
          </button>
        </span>
      ))}
      <input
        id="filter"
        type="text"
        role="combobox"
        aria-label="Add a filter"
        aria-autocomplete="list"
        aria-expanded={suggestions.length > 0}
        aria-controls={list}
        aria-activedescendant={active in suggestions ? `${list}-${active}` : undefined}
        autocomplete="off"
        spellcheck={false}
        placeholder={filters.length === 0 ? "Filter by user, action or metadata.path=value" : "Add a filter"}
        value={text}
        onInput={(event) => type(event.currentTarget.value)}
        onFocus={() => setOpen(!isFocusMoving())}
        onBlur={() => {
          setOpen(false);
          setActive(text.trim() === "" ? -1 : 0);
        }}
        onKeyDown={onKeyDown}
      />
      {filters.length > 1 && (
        <button type="button" class="link" onClick={() => onChange(filters.reduce(withoutFilter, params))}>Clear</button>
      )}
      <ul class="suggestions" role="listbox" id={list} aria-label="Filters" hidden={suggestions.length === 0}>
        {suggestions.map((suggestion, index) => (
          <li
            key={suggestion.label}
            id={`${list}-${index}`}
            role="option"
            aria-selected={index === active}
            onMouseDown={(event) => {
              event.preventDefault();
              pick(suggestion);
            }}
            onMouseEnter={() => setActive(index)}
          >
            {visible(suggestion.label)}
          </li>
        ))}
      </ul>
    </div>
  );
}
