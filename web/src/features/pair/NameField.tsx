/** What this browser is to be called in its home's list of devices. */
import { type Ref, useId } from "react";
import { MOST_DEVICE_NAME } from "@/net/home/pairing";

interface Props {
  readonly ref: Ref<HTMLInputElement>;
  readonly value: string;
  readonly wrong: boolean;
  readonly onChange: (typed: string) => void;
}

export function NameField({ ref, value, wrong, onChange }: Props) {
  const id = useId();
  return (
    <div className="space-y-1">
      <label htmlFor={id} className="block font-medium text-ink">
        Name of this browser
      </label>
      <input
        id={id}
        ref={ref}
        value={value}
        maxLength={MOST_DEVICE_NAME}
        autoComplete="off"
        aria-invalid={wrong}
        aria-describedby={`${id}-hint`}
        onChange={(event) => onChange(event.target.value)}
        className="field"
      />
      <p
        id={`${id}-hint`}
        role={wrong ? "alert" : undefined}
        className={`text-sm ${wrong ? "text-bad" : ""}`}
      >
        {wrong
          ? `Write a name of 1 to ${MOST_DEVICE_NAME} characters.`
          : "By this name you find it in the list of devices at home."}
      </p>
    </div>
  );
}
