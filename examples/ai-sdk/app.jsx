// A chat with `useChat`: send, stop, regenerate, edit, and a page that is loaded again in mid answer goes on.
import { useChat } from "@ai-sdk/react";
import { MiniChat } from "@minichat/client";
import { MiniChatTransport, messagesOf } from "@minichat/client/ai-sdk";
import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

// Whose page this is, and which chat it shows: `#api=…&token=…&chat=…`. A page of yours asks its sign-in for tokens.
const where = new URLSearchParams(location.hash.slice(1));
const client = new MiniChat({ baseUrl: where.get("api"), token: where.get("token") });
const transport = new MiniChatTransport(client);

function Message({ message, isLast, onEdit, onRegenerate }) {
  const text = message.parts.map((part) => (part.type === "text" ? part.text : "")).join("");
  return (
    <article id={message.id} data-role={message.role} aria-label={message.role}>
      {text}
      {message.parts
        .filter(({ type }) => type === "dynamic-tool")
        .map(({ toolCallId, toolName, state }) => (
          <small key={toolCallId}>
            {" "}
            [{toolName}: {state}]
          </small>
        ))}
      {message.parts
        .filter(({ type }) => type === "source-url")
        .map(({ sourceId, url, title }) => (
          <small key={sourceId}>
            {" "}
            <a href={url} rel="noreferrer">
              {title}
            </a>
          </small>
        ))}
      {isLast && (
        <button onClick={message.role === "user" ? () => onEdit(message.id, text) : onRegenerate}>
          {message.role === "user" ? "Edit" : "Regenerate"}
        </button>
      )}
    </article>
  );
}

function Chat({ id, history }) {
  const { messages, sendMessage, regenerate, stop, status, error } = useChat({
    id,
    messages: history,
    transport,
    generateId: () => crypto.randomUUID(), // the message's id is its turn's: one turn, however often it is sent
    resume: true,
  });
  const [input, setInput] = useState("");
  const [edited, setEdited] = useState();
  const lastOf = (role) => messages.findLast((message) => message.role === role)?.id;
  const isBusy = status === "submitted" || status === "streaming";

  function send(event) {
    event.preventDefault();
    sendMessage({ text: input, messageId: edited });
    setInput("");
    setEdited(undefined);
  }

  return (
    <>
      {messages.map((message) => (
        <Message
          key={message.id}
          message={message}
          isLast={!isBusy && message.id === lastOf(message.role)}
          onEdit={(messageId, text) => (setEdited(messageId), setInput(text))}
          onRegenerate={() => regenerate()}
        />
      ))}
      {error && <p role="alert">{error.message}</p>}
      <form onSubmit={send}>
        <input aria-label="Message" value={input} onChange={(event) => setInput(event.target.value)} />
        {/* Two elements: one that became the other while it is clicked would send what is typed. */}
        {isBusy ? (
          <button key="stop" type="button" onClick={stop}>
            Stop
          </button>
        ) : (
          <button key="send" disabled={!input.trim()}>
            Send
          </button>
        )}
      </form>
      <p role="status">{status}</p>
    </>
  );
}

function App() {
  const [chat, setChat] = useState();
  useEffect(() => {
    load().then(setChat);
  }, []);
  return chat ? <Chat {...chat} /> : <p>Loading</p>;
}

let loading;
/** The chat that the address names, or a new one, which it names from then on. */
function load() {
  return (loading ??= (async () => {
    const id = where.get("chat") ?? (await client.chats.create()).id;
    where.set("chat", id);
    history.replaceState(null, "", `#${where}`);
    const stored = [];
    for await (const message of client.messages.each(id, { limit: 100 })) stored.push(message);
    return { id, history: messagesOf(stored) };
  })());
}

createRoot(document.getElementById("chat")).render(<App />);
