; A disk that fills itself: the sectors 64 to 16447, in pieces of 64, each with its own number in every doubleword; then they are
; read again and compared. What came of it is printed on COM1.
bits 16
org 0x7c00

FIRST equ 64
END equ FIRST + 16384

start:
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7c00
    cld
    mov [drive], dl
    mov si, begins
    call print
write:
    call fill
    mov ax, 0x4300
    call transfer
    mov si, no_write
    jc finish
    add dword [packet + 8], 64
    cmp dword [packet + 8], END
    jb write
    mov dword [packet + 8], FIRST
read:
    mov ah, 0x42
    call transfer
    mov si, no_read
    jc finish
    mov eax, [packet + 8]
    call buffer
    repe scasd
    mov si, differs
    jne finish
    add dword [packet + 8], 64
    cmp dword [packet + 8], END
    jb read
    mov si, same
finish:
    call print
    mov al, 0x10
    out 0xf4, al
    hlt

buffer:                         ; ES:DI and CX for 64 sectors of doublewords
    mov cx, 0x1000
    mov es, cx
    xor di, di
    mov cx, 64 * 128
    ret
fill:
    mov eax, [packet + 8]
    call buffer
    rep stosd
    ret
transfer:
    mov dl, [drive]
    mov si, packet
    int 0x13
    ret

print:                          ; the text at SI, which ends with a zero
    lodsb
    test al, al
    jz .end
    mov cl, al
    mov dx, 0x3fd
.wait:
    in al, dx
    test al, 0x20
    jz .wait
    mov al, cl
    mov dx, 0x3f8
    out dx, al
    jmp print
.end:
    ret

packet: db 16, 0
        dw 64, 0, 0x1000
        dq FIRST
drive:  db 0
begins:   db "writing", 10, 0
same:     db "all there", 10, 0
differs:  db "differs", 10, 0
no_read:  db "not read", 10, 0
no_write: db "not written", 10, 0
    times 510 - ($ - $$) db 0
    dw 0xaa55
