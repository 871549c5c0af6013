// The list of conversations: {id, mode, messages: [{role, content}]}.

import { load, save } from "./storage.js";

const MOST = 100;
const list = document.getElementById("conversations");

export class Conversations {
  constructor(open) {
    this.open = open; // called with the conversation to show
    this.all = load("conversations", []);
    this.current = this.create();
    this.draw();
  }

  create(mode = "chat") {
    return { id: `${Date.now()}-${Math.random().toString(36).slice(2)}`, mode, messages: [] };
  }

  start(mode) {
    this.choose(this.create(mode));
  }

  choose(conversation) {
    this.current = conversation;
    this.draw();
    this.open(conversation);
  }

  // Keep the current conversation, the newest first.
  keep() {
    if (!this.current.messages.length) return;
    this.all = [this.current, ...this.all.filter((each) => each.id !== this.current.id)].slice(0, MOST);
    save("conversations", this.all);
    this.draw();
  }

  remove(conversation) {
    this.all = this.all.filter((each) => each !== conversation);
    save("conversations", this.all);
    if (this.current === conversation) this.start(conversation.mode);
    else this.draw();
  }

  draw() {
    list.replaceChildren(...this.all.map((each) => this.item(each)));
  }

  item(conversation) {
    const item = document.createElement("li");
    item.className = conversation.id === this.current.id ? "open" : "";
    const name = button("name", conversation.messages[0].content.slice(0, 60));
    name.addEventListener("click", () => this.choose(conversation));
    const remove = button("delete", "✕");
    remove.setAttribute("aria-label", "Delete this conversation");
    remove.addEventListener("click", () => this.remove(conversation));
    item.append(name, remove);
    return item;
  }
}

function button(kind, text) {
  const element = document.createElement("button");
  element.type = "button";
  element.className = kind;
  element.textContent = text;
  return element;
}
