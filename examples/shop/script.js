// Shows the time until the session ends as it runs down. Without this the page says once how long it was.
const line = document.getElementById("ends");
if (line) {
  const timer = line.querySelector("[role=timer]");
  const end = Date.now() + Number(line.dataset.ms);
  const two = (number) => String(number).padStart(2, "0");
  const show = () => {
    const seconds = Math.max(0, Math.ceil((end - Date.now()) / 1000));
    if (seconds === 0) {
      line.textContent = "Your session has ended. ";
      const again = document.createElement("a");
      again.href = "/";
      again.textContent = "Start again";
      line.append(again);
      line.setAttribute("role", "status");
      return;
    }
    const days = Math.floor(seconds / 86400), hours = Math.floor(seconds / 3600) % 24;
    const clock = `${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
    timer.textContent = days ? `${days} d ${hours} h` : hours ? `${hours}:${clock}` : clock;
    // On the next full second of what is left, so that no second is skipped.
    setTimeout(show, (end - Date.now()) % 1000 || 1000);
  };
  show();
}
